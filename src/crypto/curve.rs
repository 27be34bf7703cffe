//! Curve25519 keys: encoding, clamping, agreement (W§2.1–2.3). Signatures are in `xeddsa.rs`.

use super::secret::{Secret, SecretBytes};
use super::x25519;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The type byte before the 32 bytes of a serialized public key.
const TYPE_BYTE: u8 = 0x05;

/// A key, or the use of a key, was refused (W§2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No bytes at all, so not even a type.
    #[error("the key is empty")]
    Empty,
    /// The type byte is not one that this kind of key has.
    #[error("unknown key type 0x{found:02x}")]
    Type {
        /// The byte that stood there.
        found: u8,
    },
    /// Too few bytes, or for KEM keys and private keys too many.
    #[error("a key or ciphertext of {found} bytes, expected {expected}")]
    Length {
        /// Bytes that the type asks for.
        expected: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// The agreement gave all zeros: the public key has low order.
    #[error("the public key has low order: nothing secret can be agreed with it")]
    LowOrder,
}

/// A Curve25519 public key: 32 bytes, kept as they came (W§2.1). Compared byte by byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Bytes of the serialized form.
    pub const SERIALIZED_LEN: usize = 33;

    /// The key with this u-coordinate, 32 bytes little-endian, not checked for canonicity.
    pub fn from_u(u: [u8; 32]) -> Self {
        Self(u)
    }

    /// Reads `0x05 || u`. Bytes after the 33rd are ignored (W§2.1 records that tolerance).
    ///
    /// # Errors
    /// [`KeyError`] when it is empty, of another type, or shorter.
    pub fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        match bytes.split_first() {
            None => Err(KeyError::Empty),
            Some((&TYPE_BYTE, u)) => u
                .first_chunk()
                .map(|u| Self(*u))
                .ok_or(KeyError::Length { expected: Self::SERIALIZED_LEN, found: bytes.len() }),
            Some((&found, _)) => Err(KeyError::Type { found }),
        }
    }

    /// `0x05 || u`, 33 bytes.
    pub fn serialize(&self) -> [u8; Self::SERIALIZED_LEN] {
        let mut out = [TYPE_BYTE; Self::SERIALIZED_LEN];
        if let Some(u) = out.last_chunk_mut() {
            *u = self.0;
        }
        out
    }

    /// The u-coordinate, 32 bytes little-endian.
    pub fn as_u(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether the encoding is the only one of its point and the point is on the curve, in the
    /// subgroup of prime order (W§2.1). Asked of base keys alone (W§7.4).
    pub fn is_canonical(&self) -> bool {
        x25519::is_canonical(&self.0)
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PublicKey(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// A Curve25519 private key: 32 bytes, clamped when made (W§2.2), wiped when dropped.
///
/// `Clone` is there because identity keys and prekeys are loaded once and lent to many sessions.
#[derive(Clone)]
pub struct PrivateKey(pub(super) Secret<32>);

impl PrivateKey {
    /// A fresh key: draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Secret::zeroed();
        rng.fill_bytes(bytes.as_mut_bytes());
        Self::clamp(bytes)
    }

    /// Reads 32 bytes and clamps them.
    ///
    /// # Errors
    /// [`KeyError::Length`] for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 32] =
            bytes.try_into().map_err(|_| KeyError::Length { expected: 32, found: bytes.len() })?;
        Ok(Self::clamp(Secret::new(bytes)))
    }

    #[inline]
    pub(crate) fn clamp(mut bytes: Secret<32>) -> Self {
        let k = bytes.as_mut_bytes();
        *k = curve25519_dalek::scalar::clamp_integer(*k);
        Self(bytes)
    }

    /// The clamped bytes, to be stored. Wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.0.as_bytes())
    }

    /// The public key of this private key: one multiplication of the base point.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(x25519::public_key(self.0.as_bytes()))
    }

    /// X25519 with a peer's public key (W§2.3).
    ///
    /// # Errors
    /// [`KeyError::LowOrder`] when the result is all zero.
    pub(crate) fn agree(&self, their: &PublicKey) -> Result<SharedSecret, KeyError> {
        let shared = x25519::agree(self.0.as_bytes(), &their.0);
        if bool::from(shared.ct_eq(&Secret::zeroed())) {
            return Err(KeyError::LowOrder);
        }
        Ok(SharedSecret::new(shared))
    }
}

impl core::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PrivateKey")
    }
}

/// A private key with its public key kept beside it, so that it is computed once.
#[derive(Clone, Debug)]
pub struct KeyPair {
    private: PrivateKey,
    public: PublicKey,
}

impl KeyPair {
    /// A fresh pair: draws 32 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        PrivateKey::generate(rng).into()
    }

    /// A stored pair, without computing the public half again. The caller vouches that the
    /// halves belong together, as they do in a record that this crate wrote.
    #[inline]
    pub(crate) fn from_stored(private: PrivateKey, public: PublicKey) -> Self {
        Self { private, public }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The private half.
    pub fn private(&self) -> &PrivateKey {
        &self.private
    }
}

impl From<PrivateKey> for KeyPair {
    fn from(private: PrivateKey) -> Self {
        let public = private.public_key();
        Self { private, public }
    }
}

super::secret::secret_role! {
    /// The result of an X25519 agreement or a KEM: never all zero, used only as input of a derivation.
    SharedSecret, 32
}

impl ConstantTimeEq for SharedSecret {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.as_bytes().ct_eq(other.as_bytes())
    }
}

/// Joins shared secrets in the order of a table into one input of a derivation.
pub(crate) fn concat_secrets<'a>(secrets: impl IntoIterator<Item = &'a [u8; 32]>) -> SecretBytes {
    // The largest table (W§7.1) has six rows, so the buffer never moves.
    let mut joined = SecretBytes::with_capacity(6 * 32);
    secrets.into_iter().for_each(|secret| joined.extend(secret));
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    #[test]
    fn agreement_is_the_same_from_both_sides() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let (a, b) = (KeyPair::generate(&mut rng), KeyPair::generate(&mut rng));
        let (ab, ba) = (a.private.agree(&b.public).unwrap(), b.private.agree(&a.public).unwrap());
        assert!(bool::from(ab.ct_eq(&ba)));
        assert!(a.public.is_canonical() && b.public.is_canonical());
    }

    #[test]
    fn low_order_keys_are_refused_at_use_not_at_decode() {
        let key = PrivateKey::generate(&mut ChaCha20Rng::from_seed([2; 32]));
        for u in [0u8, 1] {
            let mut bytes = [0; 33];
            bytes[0] = 5;
            bytes[1] = u;
            let public = PublicKey::decode(&bytes).unwrap();
            assert_eq!(key.agree(&public).unwrap_err(), KeyError::LowOrder);
            assert!(!public.is_canonical());
        }
    }

    #[test]
    fn a_set_top_bit_or_unreduced_coordinate_is_not_canonical() {
        let key = KeyPair::generate(&mut ChaCha20Rng::from_seed([3; 32]));
        let mut u = *key.public.as_u();
        u[31] |= 0x80;
        assert!(!PublicKey::from_u(u).is_canonical());
        // u = 9 + p: the base point written with a coordinate that is not reduced.
        let mut nine = [0xff; 32];
        nine[0] = 0xed + 9;
        nine[31] = 0x7f;
        assert!(!PublicKey::from_u(nine).is_canonical());
    }
}
