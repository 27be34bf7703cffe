//! KEM keys and ciphertexts with their type byte (W§2.4). Only type 0x08, round-3 Kyber-1024, is taken.

use super::curve::{KeyError, SharedSecret};
use super::kyber;
use super::secret::{Secret, SecretBytes};
use alloc::{boxed::Box, vec::Vec};
use rand_core::CryptoRng;

/// Kyber-1024 of the third round: not the ML-KEM of FIPS 203.
const KYBER1024: u8 = 0x08;

/// Splits `type || raw`, checking the type before the length.
fn raw<const N: usize>(bytes: &[u8]) -> Result<&[u8; N], KeyError> {
    match bytes.split_first() {
        None => Err(KeyError::Empty),
        Some((&KYBER1024, raw)) => {
            raw.try_into().map_err(|_| KeyError::Length { expected: N + 1, found: bytes.len() })
        }
        Some((&found, _)) => Err(KeyError::Type { found }),
    }
}

fn typed(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 1);
    out.push(KYBER1024);
    out.extend_from_slice(raw);
    out
}

/// A KEM public key: 1569 bytes serialized, `0x08 || raw`.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublicKey(Box<[u8; kyber::PUBLIC_LEN]>);

impl KemPublicKey {
    /// Bytes of the serialized form.
    pub const SERIALIZED_LEN: usize = 1 + kyber::PUBLIC_LEN;

    /// Reads `0x08 || raw`. Coefficients above the modulus are taken, as the peers do (W§2.4).
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, of another type, or of another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        raw(bytes).map(|raw| Self(Box::new(*raw)))
    }

    /// `0x08 || raw`, 1569 bytes.
    pub fn serialize(&self) -> Vec<u8> {
        typed(self.0.as_slice())
    }

    /// Draws 32 bytes; gives the ciphertext to send and the secret it carries.
    pub(crate) fn encapsulate(&self, rng: &mut impl CryptoRng) -> (KemCiphertext, SharedSecret) {
        let mut random = Secret::zeroed();
        rng.fill_bytes(random.as_mut_bytes());
        let (ciphertext, shared) = kyber::encapsulate(&self.0, &random);
        (KemCiphertext(Box::new(ciphertext)), SharedSecret::new(shared))
    }
}

impl core::fmt::Debug for KemPublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KemPublicKey(Kyber1024)")
    }
}

/// A KEM secret key: 3169 bytes serialized, wiped when dropped.
///
/// `Clone` is there because a last-resort key is loaded once and lent to many handshakes.
#[derive(Clone)]
pub struct KemSecretKey(Box<Secret<{ kyber::SECRET_LEN }>>);

impl KemSecretKey {
    /// Bytes of the serialized form.
    pub const SERIALIZED_LEN: usize = 1 + kyber::SECRET_LEN;

    /// Reads `0x08 || raw`.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, of another type, or of another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        raw(bytes).map(|raw| Self(Box::new(Secret::new(*raw))))
    }

    /// `0x08 || raw`, 3169 bytes, to be stored. Wiped when dropped.
    pub fn serialize(&self) -> SecretBytes {
        SecretBytes::from_vec(typed(self.0.as_bytes()))
    }

    pub(crate) fn decapsulate(&self, ciphertext: &KemCiphertext) -> SharedSecret {
        SharedSecret::new(kyber::decapsulate(&self.0, &ciphertext.0))
    }
}

impl core::fmt::Debug for KemSecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KemSecretKey")
    }
}

/// A KEM ciphertext: 1569 bytes serialized.
#[derive(Clone, PartialEq, Eq)]
pub struct KemCiphertext(Box<[u8; kyber::CIPHERTEXT_LEN]>);

impl KemCiphertext {
    /// Reads `0x08 || raw`.
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, of another type, or of another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        raw(bytes).map(|raw| Self(Box::new(*raw)))
    }

    /// `0x08 || raw`, 1569 bytes.
    pub fn serialize(&self) -> Vec<u8> {
        typed(self.0.as_slice())
    }
}

impl core::fmt::Debug for KemCiphertext {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("KemCiphertext(Kyber1024)")
    }
}

/// A KEM key pair.
#[derive(Clone, Debug)]
pub struct KemKeyPair {
    secret: KemSecretKey,
    public: KemPublicKey,
}

impl KemKeyPair {
    /// A fresh pair: draws 64 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Secret::zeroed();
        rng.fill_bytes(seed.as_mut_bytes());
        let (secret, public) = kyber::generate(&seed);
        Self { secret: KemSecretKey(secret), public: KemPublicKey(public) }
    }

    /// A stored secret key; the public key is a part of it.
    #[allow(clippy::expect_used, reason = "the length is part of the type")]
    pub fn from_secret(secret: KemSecretKey) -> Self {
        // dk_pke (1536) || pk (1568) || H(pk) (32) || z (32)
        let (_dk_pke, rest) = secret.0.as_bytes().split_at(1536);
        let public = Box::new(*rest.first_chunk().expect("1632 bytes are left"));
        Self { secret, public: KemPublicKey(public) }
    }

    /// The public half.
    pub fn public(&self) -> &KemPublicKey {
        &self.public
    }

    /// The secret half.
    pub fn secret(&self) -> &KemSecretKey {
        &self.secret
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    use subtle::ConstantTimeEq;

    #[test]
    fn both_sides_get_the_same_secret_and_a_foreign_ciphertext_another() {
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let (pair, other) = (KemKeyPair::generate(&mut rng), KemKeyPair::generate(&mut rng));
        let (ciphertext, sent) = pair.public().encapsulate(&mut rng);
        assert!(bool::from(sent.ct_eq(&pair.secret().decapsulate(&ciphertext))));
        assert!(!bool::from(sent.ct_eq(&other.secret().decapsulate(&ciphertext))));
        assert_eq!(KemKeyPair::from_secret(pair.secret().clone()).public(), pair.public());
    }

    #[test]
    fn type_is_judged_before_length() {
        assert_eq!(KemPublicKey::decode(&[]).unwrap_err(), KeyError::Empty);
        assert_eq!(KemPublicKey::decode(&[0x0A]).unwrap_err(), KeyError::Type { found: 0x0A });
        assert_eq!(
            KemPublicKey::decode(&[8]).unwrap_err(),
            KeyError::Length { expected: 1569, found: 1 }
        );
    }
}
