//! HMAC-SHA-256 and HKDF-SHA-256 (W§1). Labels stand beside their single use, not here.

use super::secret::Secret;
use hkdf::{Hkdf, HkdfExtract};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// HMAC-SHA-256 under a key of any length, fed piece by piece.
#[derive(Clone)]
pub(crate) struct HmacSha256(Hmac<Sha256>);

impl HmacSha256 {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    pub(crate) fn new(key: &[u8]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of every length"))
    }

    pub(crate) fn chain(mut self, piece: &[u8]) -> Self {
        self.0.update(piece);
        self
    }

    pub(crate) fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    pub(crate) fn finish(self) -> [u8; 32] {
        self.0.finalize().into_bytes().into()
    }

    /// Whether the first `N` bytes of the tag are `tag`, in constant time.
    pub(crate) fn verify_truncated<const N: usize>(self, tag: &[u8; N]) -> bool {
        const { assert!(N <= 32) };
        let full = self.finish();
        let (head, _) = full.split_at(N);
        head.ct_eq(tag).into()
    }
}

/// `HKDF(salt, ikm, info, N)`; `None` is the salt of 32 zero bytes.
#[allow(clippy::expect_used, reason = "N is far below the limit of 255 blocks")]
pub(crate) fn hkdf<const N: usize>(salt: Option<&[u8]>, ikm: &[u8], info: &[u8]) -> Secret<N> {
    const { assert!(N <= 255 * 32) };
    let mut out = Secret::zeroed();
    Hkdf::<Sha256>::new(salt, ikm)
        .expand(info, out.as_mut_bytes())
        .expect("N is far below the limit of 255 blocks");
    out
}

/// [`hkdf`] without a salt, of key material in pieces: no copy of a secret is made to join them.
#[allow(clippy::expect_used, reason = "N is far below the limit of 255 blocks")]
pub(crate) fn hkdf_of<const N: usize>(pieces: &[&[u8]], info: &[u8]) -> Secret<N> {
    const { assert!(N <= 255 * 32) };
    let mut extract = HkdfExtract::<Sha256>::new(None);
    pieces.iter().for_each(|piece| extract.input_ikm(piece));
    let mut out = Secret::zeroed();
    let (_, expand) = extract.finalize();
    expand.expand(info, out.as_mut_bytes()).expect("N is far below the limit of 255 blocks");
    out
}
