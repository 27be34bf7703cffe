//! SHA-512 of safety numbers (W§16).

use sha2::{Digest, Sha512};

/// SHA-512 of the pieces, one after the other.
pub(crate) fn sha512(pieces: &[&[u8]]) -> [u8; 64] {
    let mut hash = Sha512::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finalize().into()
}
