//! W§18.2. Padding of contents: 0x80, then zeros, so that lengths tell little.

/// Contents are padded to this step, in bytes, less the one that the cipher adds itself.
const BLOCK: usize = 80;
const MARK: u8 = 0x80;

/// Appends the mark and zeros: `BLOCK * ceil((n + 2) / BLOCK) - 1` bytes in all.
pub(crate) fn pad(mut content: Vec<u8>) -> Vec<u8> {
    let padded = (content.len() + 2).div_ceil(BLOCK) * BLOCK - 1;
    content.push(MARK);
    content.resize(padded, 0);
    content
}

/// Takes the padding off. Bytes that do not end like padding are unpadded ones.
pub(crate) fn unpad(padded: &[u8]) -> &[u8] {
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
            assert_eq!(pad(vec![7; len]).len(), padded, "{len}");
        }
    }

    #[test]
    fn unpadded_bytes_are_taken_as_they_are() {
        assert_eq!(unpad(b"plain"), b"plain");
        assert_eq!(unpad(&[0, 0]), &[0, 0]);
        assert_eq!(unpad(&[]), b"");
        // Another sender's step.
        assert_eq!(unpad(&[1, 0x80, 0, 0, 0]), &[1]);
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back(content: Vec<u8>) {
            let padded = pad(content.clone());
            prop_assert_eq!(unpad(&padded), &content[..]);
        }
    }
}
