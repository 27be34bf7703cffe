//! Padding, so that lengths tell little: 0x80, then zeros. W§18.2 for contents, inside their encryption; our own
//! for sealed envelopes, behind them, on their way to a relay, which takes a few sizes alone.
//!
//! What stands behind an envelope hides nothing from who carries it: the zeros are seen. So contents are padded in
//! as few steps, each the most that its envelope has room for: how many zeros are left depends on the kind of a
//! message, and not on what it says.

use alloc::vec::Vec;

/// Contents are padded to this step, in bytes, less the one that the cipher adds itself. Readers do
/// not depend on it.
const BLOCK: usize = 80;
const MARK: u8 = 0x80;

/// Sizes of envelopes on their way to a relay and in its store, in bytes: 1, 4, 16, 64 and 96 KiB.
pub const ENVELOPE_SIZES: [usize; 5] = [1024, 4096, 16_384, 65_536, 98_304];

/// Lengths of padded contents, in bytes, in the same order. Below each size there is room for what a session or a
/// sender key adds and for the sealing with a certificate of our server (459 to 483 bytes, and up to 50 more as
/// counters grow); below the last for a first message too, which has 2,160 around it and else takes the next size.
const CONTENT_LENGTHS: [usize; 5] = [479, 3_519, 15_839, 64_959, 95_999];

/// Appends the mark and zeros: `80 * ceil((n + 2) / 80) - 1` bytes in all. Reserve them before if the
/// content must not leave a copy behind.
pub fn pad(content: &mut Vec<u8>) {
    pad_to(content, padded_len(content.len()));
}

/// Bytes of a padded content of `len` bytes.
fn padded_len(len: usize) -> usize {
    (len + 2).div_ceil(BLOCK) * BLOCK - 1
}

/// Bytes to which a content of `len` bytes is padded for an envelope. One that no envelope has room for is padded to
/// the step.
pub(crate) fn content_len(len: usize) -> usize {
    let length = CONTENT_LENGTHS.into_iter().find(|length| len < *length);
    length.unwrap_or(padded_len(len))
}

/// Pads a content to [`content_len`].
pub(crate) fn pad_content(content: &mut Vec<u8>) {
    pad_to(content, content_len(content.len()));
}

/// The mark, and zeros up to a length that has room for it.
pub(crate) fn pad_to(bytes: &mut Vec<u8>, len: usize) {
    bytes.push(MARK);
    bytes.resize(len, 0);
}

/// Takes the padding off, whatever step it was made with. Bytes that do not end like padding are
/// unpadded ones.
pub fn unpad(padded: &[u8]) -> &[u8] {
    marked(padded).unwrap_or(padded)
}

/// What stands before the last mark, if nothing but zeros comes after it.
fn marked(padded: &[u8]) -> Option<&[u8]> {
    let end = padded.iter().rposition(|byte| *byte != 0)?;
    match padded.split_at_checked(end) {
        Some((content, [MARK, ..])) => Some(content),
        _ => None,
    }
}

/// Pads a sealed envelope in place to the next of [`ENVELOPE_SIZES`]: the mark 0x80, at least, and zeros. Padded
/// twice it has to be unpadded twice.
///
/// ```
/// let mut envelope = vec![0x11; 700];
/// tuckseal::pad_envelope(&mut envelope)?;
/// assert_eq!(envelope.len(), 1024);
/// assert_eq!(tuckseal::unpad_envelope(&envelope)?, [0x11; 700]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`EnvelopeTooLong`] above 98,303 bytes; nothing was changed.
pub fn pad_envelope(envelope: &mut Vec<u8>) -> Result<(), EnvelopeTooLong> {
    let size = envelope_size(envelope.len())?;
    pad_to(envelope, size);
    Ok(())
}

/// The size of an envelope of `len` bytes when it is padded.
pub(crate) fn envelope_size(len: usize) -> Result<usize, EnvelopeTooLong> {
    let size = ENVELOPE_SIZES.into_iter().find(|size| len < *size);
    size.ok_or(EnvelopeTooLong { found: len })
}

/// Takes off what [`pad_envelope`] has appended. A larger size than the least is taken: a sender may hide more.
///
/// # Errors
/// [`UnpadError`] when the bytes are not of one of [`ENVELOPE_SIZES`], or do not end with a mark and zeros.
pub fn unpad_envelope(padded: &[u8]) -> Result<&[u8], UnpadError> {
    if !ENVELOPE_SIZES.contains(&padded.len()) {
        return Err(UnpadError::Size { found: padded.len() });
    }
    marked(padded).ok_or(UnpadError::Unmarked)
}

/// An envelope is too long for the largest size. Say less, or in several messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an envelope of {found} bytes is too long: no relay takes more than 98303 and a byte of padding"
)]
pub struct EnvelopeTooLong {
    /// Its bytes, without padding.
    pub found: usize,
}

/// Bytes are no padded envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnpadError {
    /// Not of one of [`ENVELOPE_SIZES`].
    #[error("{found} bytes are no size of an envelope")]
    Size {
        /// How many there are.
        found: usize,
    },
    /// No mark before the zeros at its end.
    #[error("the envelope does not end with padding")]
    Unmarked,
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

    #[test]
    fn contents_have_five_lengths_and_beyond_them_go_in_steps_of_eighty() {
        let mut lengths: Vec<usize> = (0..96_100).map(content_len).collect();
        lengths.dedup();
        assert_eq!(lengths, [&CONTENT_LENGTHS[..], &[96_079, 96_159]].concat());
        assert!(lengths.iter().all(|len| (len + 1) % BLOCK == 0));
    }

    #[test]
    fn envelopes_have_five_sizes_and_none_is_without_a_mark() {
        for (len, size) in
            [(0, 1024), (1023, 1024), (1024, 4096), (65_535, 65_536), (98_303, 98_304)]
        {
            let mut envelope = alloc::vec![0; len];
            pad_envelope(&mut envelope).unwrap();
            assert_eq!(envelope.len(), size, "{len}");
            assert_eq!(unpad_envelope(&envelope), Ok(&alloc::vec![0; len][..]));
        }
        let mut long = alloc::vec![7; 98_304];
        assert_eq!(pad_envelope(&mut long), Err(EnvelopeTooLong { found: 98_304 }));
        assert_eq!(long, [7; 98_304]);
    }

    #[test]
    fn what_is_of_no_size_or_does_not_end_like_padding_is_no_padded_envelope() {
        for len in [0, 1, 1023, 1025, 98_305, 131_072] {
            let mut bytes = alloc::vec![0; len];
            bytes.iter_mut().take(1).for_each(|byte| *byte = MARK);
            assert_eq!(unpad_envelope(&bytes), Err(UnpadError::Size { found: len }));
        }
        let mut bytes = alloc::vec![0; 1024];
        assert_eq!(unpad_envelope(&bytes), Err(UnpadError::Unmarked));
        (bytes[700], bytes[701]) = (MARK, 1);
        assert_eq!(unpad_envelope(&bytes), Err(UnpadError::Unmarked));
        bytes[701] = 0;
        assert_eq!(unpad_envelope(&bytes).map(<[u8]>::len), Ok(700));
    }

    proptest! {
        #[test]
        fn what_was_padded_comes_back_whatever_the_step(content: Vec<u8>, zeros in 0..400usize) {
            let mut padded = content.clone();
            pad(&mut padded);
            prop_assert_eq!(unpad(&padded), &content[..]);
            let other = [&content[..], &[MARK], &alloc::vec![0; zeros]].concat();
            prop_assert_eq!(unpad(&other), &content[..]);
            let mut padded = content.clone();
            pad_content(&mut padded);
            prop_assert_eq!((padded.len(), unpad(&padded)), (content_len(content.len()), &content[..]));
        }

        #[test]
        fn what_was_padded_as_an_envelope_comes_back(
            bytes in proptest::collection::vec(prop_oneof![Just(0), Just(MARK), any::<u8>()], 0..5000),
        ) {
            let mut padded = bytes.clone();
            pad_envelope(&mut padded).unwrap();
            prop_assert!(ENVELOPE_SIZES.contains(&padded.len()) && padded.len() > bytes.len());
            prop_assert_eq!(unpad_envelope(&padded), Ok(&bytes[..]));
            if let Ok(inner) = unpad_envelope(&bytes) {
                prop_assert!(bytes.starts_with(inner));
            }
        }
    }
}
