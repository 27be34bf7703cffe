//! SHA-512 of safety numbers (W§16), SHA-256 of attachments (W§18.1) and to recognise bytes that were
//! seen before.

use sha2::{Digest, Sha256, Sha512};

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-512 of the pieces, one after the other.
pub(crate) fn sha512(pieces: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finalize().into()
}

/// SHA-256, fed piece by piece.
#[derive(Default)]
pub(crate) struct RunningSha256(Sha256);

impl RunningSha256 {
    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}
