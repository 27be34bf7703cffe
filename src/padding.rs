//! W§18.2. Padding of contents: 0x80, then zeros, so that lengths tell little.

use alloc::vec::Vec;

/// Contents are padded to this step, in bytes, less the one that the cipher adds itself. Readers do
/// not depend on it.
const BLOCK: usize = 80;
const MARK: u8 = 0x80;

/// Appends the mark and zeros: `80 * ceil((n + 2) / 80) - 1` bytes in all. Reserve them before if the
/// content must not leave a copy behind.
pub fn pad(content: &mut Vec<u8>) {
    let padded = padded_len(content.len());
    content.push(MARK);
    content.resize(padded, 0);
}

/// Bytes of a padded content of `len` bytes.
pub(crate) fn padded_len(len: usize) -> usize {
    (len + 2).div_ceil(BLOCK) * BLOCK - 1
}

/// Takes the padding off, whatever step it was made with. Bytes that do not end like padding are
/// unpadded ones.
pub fn unpad(padded: &[u8]) -> &[u8] {
    let end = padded.iter().rposition(|byte| *byte != 0);
    match end.and_then(|end| padded.split_at_checked(end)) {
        Some((content, [MARK, ..])) => content,
        _ => padded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_go_in_steps_of_eighty() {
        for (len, padded) in
            [(0, 79), (77, 79), (78, 79), (79, 159), (80, 159), (158, 159), (159, 239)]
        {
            let mut content = alloc::vec![7; len];
            pad(&mut content);
            assert_eq!(content.len(), padded, "{len}");
        }
    }

    #[test]
    fn unpadded_bytes_are_taken_as_they_are() {
        assert_eq!(unpad(b"plain"), b"plain");
        assert_eq!(unpad(&[0, 0]), &[0, 0]);
        assert_eq!(unpad(&[]), b"");
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back_whatever_the_step(content: Vec<u8>, zeros in 0..400usize) {
            let mut padded = content.clone();
            pad(&mut padded);
            prop_assert_eq!(unpad(&padded), &content[..]);
            let other = [&content[..], &[MARK], &alloc::vec![0; zeros]].concat();
            prop_assert_eq!(unpad(&other), &content[..]);
        }
    }
}
