//! S§7. Incremental ML-KEM-768: a KEM whose key and ciphertext travel in two parts each, so that
//! the first part of a ciphertext can go out before the key has come in.
//!
//! Between the two parts of an encapsulation only (m, header) is kept, 96 bytes: the second part is
//! made by repeating the whole encapsulation. Of a key pair the seed is kept, 64 bytes. Sizes in bytes:
//! header 64, ek vector 1152, decapsulation key 2400, ct1 960, ct2 128, shared secret 32.

use crate::crypto::secret::Secret;
use alloc::boxed::Box;
use libcrux_ml_kem::mlkem768::{self, incremental};
use zeroize::Zeroize;

pub(super) const HEADER_LEN: usize = 64;
pub(super) const EK_LEN: usize = 1152;
pub(super) const DK_LEN: usize = 2400;
pub(super) const CT1_LEN: usize = 960;
pub(super) const CT2_LEN: usize = 128;
/// The state that other implementations store between the two parts (S§7.6).
const STATE_LEN: usize = 2080;

/// ρ and the hash of the encapsulation key.
pub(super) type Header = [u8; HEADER_LEN];
/// The standard expanded decapsulation key; the encapsulation key is a part of it.
pub(super) type DecapsulationKey = Box<Secret<DK_LEN>>;

/// A decapsulation key as a state keeps it between messages.
#[derive(Clone)]
pub(super) enum KeptKey {
    /// d ‖ z. The key is made from it again in the two messages of an epoch that need it, so that not
    /// every save has its 2400 bytes.
    Seed(Secret<64>),
    /// Of an imported state, whose seed nobody knows.
    Expanded(DecapsulationKey),
}

impl KeptKey {
    pub(super) fn expand(&self) -> DecapsulationKey {
        match self {
            Self::Seed(seed) => MlKem768::generate(seed),
            Self::Expanded(dk) => dk.clone(),
        }
    }
}

/// The encapsulation key is not the one that its header announced, or not canonical (S§7.4).
pub(super) struct KeyMismatch;

/// What the braid asks of a KEM.
pub(super) trait IncrementalKem {
    /// From d ‖ z.
    fn generate(seed: &Secret<64>) -> DecapsulationKey;
    /// The first part of the ciphertext, and the shared secret.
    fn encaps1(header: &Header, m: &Secret<32>) -> ([u8; CT1_LEN], Secret<32>);
    /// The second part, for the key that passed [`Self::check`].
    fn encaps2(header: &Header, m: &Secret<32>, ek: &[u8; EK_LEN]) -> [u8; CT2_LEN];
    /// Whether the ek vector belongs to the header and is canonical.
    fn check(header: &Header, ek: &[u8; EK_LEN]) -> Result<(), KeyMismatch>;
    /// Never fails: a ciphertext for another key gives an unrelated secret.
    fn decaps(dk: &DecapsulationKey, ct1: &[u8; CT1_LEN], ct2: &[u8; CT2_LEN]) -> Secret<32>;
}

/// libcrux. It wipes nothing; here everything that it leaves behind is wiped.
pub(super) enum MlKem768 {}

impl IncrementalKem for MlKem768 {
    fn generate(seed: &Secret<64>) -> DecapsulationKey {
        let mut dk = Box::new(Secret::zeroed());
        incremental::generate_key_pair_compressed(*seed.as_bytes(), dk.as_mut_bytes());
        dk
    }

    #[allow(clippy::expect_used, reason = "all three lengths are those that libcrux asks for")]
    fn encaps1(header: &Header, m: &Secret<32>) -> ([u8; CT1_LEN], Secret<32>) {
        let (mut state, mut ss) = (Secret::<STATE_LEN>::zeroed(), Secret::<32>::zeroed());
        let (state, secret) = (state.as_mut_bytes(), ss.as_mut_bytes());
        let ct1 = incremental::encapsulate1(header, *m.as_bytes(), state, secret)
            .map_err(|_| ())
            .expect("the lengths are right");
        (ct1.value, ss)
    }

    fn encaps2(header: &Header, m: &Secret<32>, ek: &[u8; EK_LEN]) -> [u8; CT2_LEN] {
        let mut key = [0; EK_LEN + 32];
        let (vector, rho) = key.split_at_mut(EK_LEN);
        vector.copy_from_slice(ek);
        for (to, from) in rho.iter_mut().zip(header) {
            *to = *from;
        }
        let (ciphertext, mut ss) = mlkem768::encapsulate(&key.into(), *m.as_bytes());
        ss.zeroize();
        let (_ct1, ct2) = ciphertext.as_slice().split_at(CT1_LEN);
        let mut out = [0; CT2_LEN];
        out.copy_from_slice(ct2);
        out
    }

    fn check(header: &Header, ek: &[u8; EK_LEN]) -> Result<(), KeyMismatch> {
        incremental::validate_pk_bytes(header, ek).map_err(|_| KeyMismatch)
    }

    fn decaps(dk: &DecapsulationKey, ct1: &[u8; CT1_LEN], ct2: &[u8; CT2_LEN]) -> Secret<32> {
        let (ct1, ct2) =
            (incremental::Ciphertext1 { value: *ct1 }, incremental::Ciphertext2 { value: *ct2 });
        Secret::new(incremental::decapsulate_compressed_key(dk.as_bytes(), &ct1, &ct2))
    }
}

/// The ek vector inside a decapsulation key.
#[allow(clippy::expect_used, reason = "both bounds are inside the 2400 bytes")]
pub(super) fn ek(dk: &DecapsulationKey) -> &[u8; EK_LEN] {
    dk.as_bytes().split_at(EK_LEN).1.first_chunk().expect("1248 bytes are left")
}

/// The header inside a decapsulation key: ρ ‖ H(ek) follow the ek vector.
#[allow(clippy::expect_used, reason = "both bounds are inside the 2400 bytes")]
pub(super) fn header(dk: &DecapsulationKey) -> &Header {
    dk.as_bytes().split_at(2 * EK_LEN).1.first_chunk().expect("96 bytes are left")
}

/// The second part from a state that another implementation stored (S§7.6, 10.4). Coefficients are
/// reduced first: libcrux's arithmetic expects that.
pub(super) fn encaps2_from_state(state: &Secret<2080>, ek: &[u8; EK_LEN]) -> [u8; CT2_LEN] {
    let mut state = state.clone();
    let (words, _m) = state.as_mut_bytes().split_at_mut(STATE_LEN - 32);
    let (words, _) = words.as_chunks_mut::<2>();
    for word in words {
        let reduced = i16::from_le_bytes(*word) % 3329;
        *word = reduced.to_le_bytes();
    }
    incremental::encapsulate2(state.as_bytes(), ek).value
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{
        ChaCha20Rng,
        rand_core::{Rng, SeedableRng},
    };

    /// The crate `ml-kem` is an independent code of FIPS 203: the parts, put together, are its keys and
    /// ciphertexts, and either decapsulates what the other made.
    #[test]
    fn parts_are_those_of_the_standard() {
        use ml_kem::{B32, Decapsulate, DecapsulationKey768, KeyExport};
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        for _ in 0..100 {
            let (mut seed, mut m) = ([0; 64], [0; 32]);
            rng.fill_bytes(&mut seed);
            rng.fill_bytes(&mut m);
            let dk = MlKem768::generate(&Secret::new(seed));
            let theirs = DecapsulationKey768::from_seed(seed.into());
            let public = [&ek(&dk)[..], &header(&dk)[..32]].concat();
            assert_eq!(theirs.encapsulation_key().to_bytes()[..], public);

            let (sent, secret) =
                theirs.encapsulation_key().encapsulate_deterministic(&B32::from(m));
            let m = Secret::new(m);
            let (mut ct1, ours) = MlKem768::encaps1(header(&dk), &m);
            let ct2 = MlKem768::encaps2(header(&dk), &m, ek(&dk));
            assert_eq!(
                ([&ct1[..], &ct2].concat(), &ours.as_bytes()[..]),
                (sent.to_vec(), &secret[..])
            );
            assert_eq!(
                MlKem768::decaps(&dk, &ct1, &ct2).as_bytes()[..],
                theirs.decapsulate(&sent)[..]
            );

            ct1[5] ^= 1;
            let changed = [&ct1[..], &ct2].concat();
            let theirs = theirs.decapsulate(&changed[..].try_into().unwrap());
            assert_eq!(MlKem768::decaps(&dk, &ct1, &ct2).as_bytes()[..], theirs[..]);
        }
    }

    #[test]
    fn both_sides_get_the_same_secret_and_a_foreign_key_is_noticed() {
        let dk = MlKem768::generate(&Secret::new([1; 64]));
        let m = Secret::new([2; 32]);
        let (ct1, sent) = MlKem768::encaps1(header(&dk), &m);
        assert!(MlKem768::check(header(&dk), ek(&dk)).is_ok());
        let ct2 = MlKem768::encaps2(header(&dk), &m, ek(&dk));
        assert_eq!(MlKem768::decaps(&dk, &ct1, &ct2).as_bytes(), sent.as_bytes());
        let other = MlKem768::generate(&Secret::new([3; 64]));
        assert!(MlKem768::check(header(&dk), ek(&other)).is_err());
        assert_ne!(MlKem768::decaps(&other, &ct1, &ct2).as_bytes(), sent.as_bytes());
    }
}
