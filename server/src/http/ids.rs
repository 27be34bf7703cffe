//! Names of things as paths and headers have them.

/// 1 to 127, written in one way.
pub(super) fn device(text: &str) -> Option<u8> {
    text.parse().ok().filter(|id: &u8| (1..=127).contains(id) && id.to_string() == text)
}

/// 32 hex digits.
pub(super) fn sixteen_bytes(hex: &[u8]) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(hex, &mut bytes).ok().map(|()| bytes)
}
