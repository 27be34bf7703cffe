//! Round-3 Kyber-1024 (W§2.4), through libcrux. Raw bytes, without the type byte: that is `kem.rs`.

use super::secret::Secret;
use alloc::boxed::Box;
use libcrux_ml_kem::kyber1024;

pub(super) const PUBLIC_LEN: usize = 1568;
pub(super) const SECRET_LEN: usize = 3168;
pub(super) const CIPHERTEXT_LEN: usize = 1568;

/// Draws nothing: `seed` is `d || z` of the key generation.
pub(super) fn generate(seed: &Secret<64>) -> (Box<Secret<SECRET_LEN>>, Box<[u8; PUBLIC_LEN]>) {
    let (mut secret, public) = kyber1024::generate_key_pair(*seed.as_bytes()).into_parts();
    let mut kept = Box::new(Secret::zeroed());
    *kept.as_mut_bytes() = *secret.as_slice();
    wipe(&mut secret);
    (kept, Box::new(*public.as_slice()))
}

pub(super) fn encapsulate(
    public: &[u8; PUBLIC_LEN],
    random: &Secret<32>,
) -> ([u8; CIPHERTEXT_LEN], Secret<32>) {
    let (ciphertext, shared) = kyber1024::encapsulate(&public.into(), *random.as_bytes());
    (*ciphertext.as_slice(), Secret::new(shared))
}

/// Never fails: a ciphertext that was not made for this key gives an unrelated secret.
pub(super) fn decapsulate(
    secret: &Secret<SECRET_LEN>,
    ciphertext: &[u8; CIPHERTEXT_LEN],
) -> Secret<32> {
    let mut key = secret.as_bytes().into();
    let shared = kyber1024::decapsulate(&key, &ciphertext.into());
    wipe(&mut key);
    Secret::new(shared)
}

/// libcrux does not wipe its keys; this does.
#[allow(clippy::indexing_slicing, reason = "a range from 0 is inside every key")]
fn wipe(key: &mut libcrux_ml_kem::MlKemPrivateKey<SECRET_LEN>) {
    zeroize::zeroize_bytes(&mut key[0..]);
}
