//! HMAC-SHA-256 and HKDF-SHA-256 (W§1). Labels stand beside their single use, not here.
//!
//! A message costs nine HMACs of a block or two each, several of them under one key. So HMAC stands
//! here on the compression function itself: keyed once, used often, without a copy of a hasher's
//! buffer each time. The tests compare it with the crates `hmac` and `hkdf`.

use super::secret::Secret;
use hkdf::{Hkdf, HkdfExtract};
use sha2::{Digest, Sha256, block_api::compress256};
use subtle::ConstantTimeEq;

const BLOCK: usize = 64;

/// Initial state of SHA-256 (FIPS 180-4, 5.3.3).
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// HMAC under 32 zero bytes, HKDF's salt where there is none: as `HmacKey::new` makes it (the tests
/// compare), but known when compiled.
pub(crate) static NO_SALT: HmacKey = HmacKey {
    inner: [
        0xf454_dead,
        0x9725_214f,
        0x90da_f2a0,
        0xdf12_28ea,
        0x64e5_750f,
        0xa392_4181,
        0x824a_932b,
        0xf8e0_4e32,
    ],
    outer: [
        0xd385_480f,
        0x7abb_6477,
        0x37c9_c538,
        0x5dd8_2467,
        0x8e04_3a72,
        0x7534_34b0,
        0xdeb8_2818,
        0x361d_45a6,
    ],
};

/// Bytes of a short message that fit one block with its padding.
const LENGTH_AT: usize = BLOCK - 8;

/// A key of HMAC-SHA-256, taken in: the hash states after its two padded blocks. Wiped when dropped.
#[derive(Clone)]
pub(crate) struct HmacKey {
    inner: [u32; 8],
    outer: [u32; 8],
}

impl HmacKey {
    /// A key of any length: what is longer than a block is hashed first.
    pub(crate) fn new(key: &[u8]) -> Self {
        if key.len() > BLOCK {
            let hashed = Secret::<32>::new(Sha256::digest(key).into());
            return Self::new(hashed.as_bytes());
        }
        let mut padded = Secret::<BLOCK>::new([0x36; BLOCK]);
        padded.as_mut_bytes().iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        let inner = compressed(INITIAL, &padded);
        padded.as_mut_bytes().iter_mut().for_each(|byte| *byte ^= 0x36 ^ 0x5C);
        Self { inner, outer: compressed(INITIAL, &padded) }
    }

    /// Begins a tag, to be fed piece by piece.
    pub(crate) fn begin(&self) -> HmacSha256 {
        HmacSha256 { key: self.clone(), block: Secret::zeroed(), fill: 0, len: BLOCK as u64 }
    }
}

impl Drop for HmacKey {
    fn drop(&mut self) {
        (self.inner, self.outer) = ([0; 8], [0; 8]);
        zeroize::optimization_barrier(self);
    }
}

fn compressed(mut state: [u32; 8], block: &Secret<BLOCK>) -> [u32; 8] {
    compress256(&mut state, core::slice::from_ref(block.as_bytes()));
    state
}

/// A tag of HMAC-SHA-256 in the making, fed piece by piece.
#[derive(Clone)]
pub(crate) struct HmacSha256 {
    /// Its inner state moves on with each full block.
    key: HmacKey,
    block: Secret<BLOCK>,
    fill: usize,
    /// Bytes hashed so far, with the key's block.
    len: u64,
}

impl HmacSha256 {
    pub(crate) fn new(key: &[u8]) -> Self {
        HmacKey::new(key).begin()
    }

    pub(crate) fn chain(mut self, piece: &[u8]) -> Self {
        self.update(piece);
        self
    }

    pub(crate) fn update(&mut self, mut piece: &[u8]) {
        self.len = self.len.wrapping_add(piece.len() as u64);
        while let Some(room) = self.block.as_mut_bytes().get_mut(self.fill..) {
            if piece.len() < room.len() {
                room.iter_mut().zip(piece).for_each(|(byte, new)| *byte = *new);
                self.fill += piece.len();
                return;
            }
            let (now, later) = piece.split_at(room.len());
            room.copy_from_slice(now);
            compress256(&mut self.key.inner, core::slice::from_ref(self.block.as_bytes()));
            let (whole, rest) = later.as_chunks::<BLOCK>();
            compress256(&mut self.key.inner, whole);
            (piece, self.fill) = (rest, 0);
        }
    }

    pub(crate) fn finish(mut self) -> [u8; 32] {
        let bits = self.len.wrapping_mul(8).to_be_bytes();
        let block = self.block.as_mut_bytes();
        if let Some((end, rest)) = block.get_mut(self.fill..).and_then(<[u8]>::split_first_mut) {
            *end = 0x80;
            rest.fill(0);
        }
        if self.fill >= LENGTH_AT {
            self.key.inner = compressed(self.key.inner, &self.block);
            *self.block.as_mut_bytes() = [0; BLOCK];
        }
        if let Some(length) = self.block.as_mut_bytes().last_chunk_mut() {
            *length = bits;
        }
        self.key.inner = compressed(self.key.inner, &self.block);

        // The outer hash: a key's block and the 32 bytes of the inner one.
        let block = self.block.as_mut_bytes();
        let (inner, padding) = block.split_at_mut(32);
        put_words(inner, &self.key.inner);
        padding.fill(0);
        if let Some(end) = padding.first_mut() {
            *end = 0x80;
        }
        if let Some(length) = padding.last_chunk_mut() {
            *length = ((BLOCK as u64 + 32) * 8).to_be_bytes();
        }
        self.key.outer = compressed(self.key.outer, &self.block);
        let mut tag = [0; 32];
        put_words(&mut tag, &self.key.outer);
        tag
    }

    /// Whether the first `N` bytes of the tag are `tag`, in constant time.
    pub(crate) fn verify_truncated<const N: usize>(self, tag: &[u8; N]) -> bool {
        const { assert!(N <= 32) };
        let full = self.finish();
        let (head, _) = full.split_at(N);
        head.ct_eq(tag).into()
    }
}

fn put_words(out: &mut [u8], words: &[u32; 8]) {
    let (chunks, _) = out.as_chunks_mut::<4>();
    chunks.iter_mut().zip(words).for_each(|(bytes, word)| *bytes = word.to_be_bytes());
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

/// [`hkdf`] of a message: the salt is a key of 32 bytes, the output at most three blocks.
pub(crate) fn hkdf_keyed<const N: usize>(salt: &[u8; 32], ikm: &[u8], info: &[u8]) -> Secret<N> {
    const { assert!(N <= 3 * 32) };
    let prk = Secret::new(HmacSha256::new(salt).chain(ikm).finish());
    let keyed = HmacKey::new(prk.as_bytes());
    let mut out = Secret::zeroed();
    let mut before = Secret::<32>::zeroed();
    for (number, block) in (1..).zip(out.as_mut_bytes().chunks_mut(32)) {
        let tag = if number == 1 { keyed.begin() } else { keyed.begin().chain(before.as_bytes()) };
        before = Secret::new(tag.chain(info).chain(&[number]).finish());
        block.iter_mut().zip(before.as_bytes()).for_each(|(out, byte)| *out = *byte);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;

    fn published(key: &[u8], message: &[u8]) -> [u8; 32] {
        let keyed = Hmac::<Sha256>::new_from_slice(key).unwrap();
        keyed.chain_update(message).finalize().into_bytes().into()
    }

    #[test]
    fn every_length_over_three_blocks_is_that_of_the_hmac_crate() {
        let message: Vec<u8> = (0..200).collect();
        for len in 0..=message.len() {
            let tag = HmacSha256::new(&[7; 32]).chain(&message[..len]).finish();
            assert_eq!(tag, published(&[7; 32], &message[..len]), "{len} bytes");
        }
    }

    #[test]
    fn no_salt_is_thirty_two_zero_bytes() {
        assert_eq!(NO_SALT.begin().chain(b"ikm").finish(), published(&[0; 32], b"ikm"));
    }

    proptest! {
        #[test]
        fn a_message_is_derived_as_by_the_hkdf_crate(salt: [u8; 32], ikm: [u8; 32], info: [u8; 20]) {
            let by_crate = hkdf::<80>(Some(&salt), &ikm, &info);
            prop_assert!(bool::from(hkdf_keyed::<80>(&salt, &ikm, &info).ct_eq(&by_crate)));
            let by_crate = hkdf::<64>(Some(&salt), &ikm, &info);
            prop_assert!(bool::from(hkdf_keyed::<64>(&salt, &ikm, &info).ct_eq(&by_crate)));
        }

        #[test]
        fn the_cuts_between_pieces_do_not_matter(
            key in prop::collection::vec(any::<u8>(), 0..150),
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8),
        ) {
            let keyed = HmacKey::new(&key);
            let mut tag = keyed.begin();
            pieces.iter().for_each(|piece| tag.update(piece));
            let expected = published(&key, &pieces.concat());
            prop_assert_eq!(tag.clone().finish(), expected);
            prop_assert!(tag.verify_truncated(&expected));
        }
    }
}
