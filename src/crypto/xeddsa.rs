//! XEdDSA as the wire has it: the sign of the Edwards point travels in the last byte (W§3).

use super::{PrivateKey, PublicKey};
use curve25519_dalek::{EdwardsPoint, Scalar, montgomery::MontgomeryPoint};
use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use rand_core::CryptoRng;
use sha2::{Digest, Sha512};
use zeroize::Zeroizing;

/// A signature does not belong to this key and message. Nothing more is said on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not belong to this key and message")]
pub struct InvalidSignature;

/// Set in the top byte of the hash input of a nonce, so that it never equals a signed message.
const NONCE_PREFIX: [u8; 32] = {
    let mut prefix = [0xFF; 32];
    prefix[0] = 0xFE;
    prefix
};

impl PrivateKey {
    /// Signs a message (W§3.1): 64 bytes. Draws 64 bytes; two signatures of one message differ.
    pub fn sign(&self, message: &[u8], rng: &mut impl CryptoRng) -> [u8; 64] {
        let mut random = Zeroizing::new([0; 64]);
        rng.fill_bytes(random.as_mut_slice());
        self.sign_with_randomness(message, &random)
    }

    /// [`PrivateKey::sign`] with the 64 random bytes given by the caller. They must never be used
    /// for a second message: for test vectors and conformance tests.
    pub fn sign_with_randomness(&self, message: &[u8], random: &[u8; 64]) -> [u8; 64] {
        self.sign_at(&self.edwards(), message, random)
    }

    /// The compressed Edwards point of this key: a fixed-base multiplication, half of a signature.
    fn edwards(&self) -> [u8; 32] {
        let a = Zeroizing::new(Scalar::from_bytes_mod_order(*self.0.as_bytes()));
        EdwardsPoint::mul_base(&a).compress().0
    }

    /// Signs with [`PrivateKey::edwards`] at hand.
    fn sign_at(&self, public: &[u8; 32], message: &[u8], random: &[u8; 64]) -> [u8; 64] {
        let k = self.0.as_bytes();
        let a = Zeroizing::new(Scalar::from_bytes_mod_order(*k));
        let nonce = Sha512::new().chain_update(NONCE_PREFIX).chain_update(k).chain_update(message);
        let r = Zeroizing::new(scalar(nonce.chain_update(random)));
        let commitment = EdwardsPoint::mul_base(&r).compress();
        let h = scalar(
            Sha512::new().chain_update(commitment.0).chain_update(public).chain_update(message),
        );
        let s = *r + h * *a;

        let mut signature = Signature::from_components(commitment.0, s.to_bytes()).to_bytes();
        let sign = public.last().map_or(0, |byte| byte & 0x80);
        if let Some(last) = signature.last_mut() {
            *last = (*last & 0x7F) | sign;
        }
        signature
    }
}

/// A private key that signs often: its point is kept beside it, so that a signature costs one
/// multiplication instead of two.
pub(crate) struct SigningKey {
    private: PrivateKey,
    edwards: [u8; 32],
}

impl SigningKey {
    pub(crate) fn new(private: PrivateKey) -> Self {
        let edwards = private.edwards();
        Self { private, edwards }
    }

    /// A stored key. The caller vouches that the point is that of the key, as it is in a record
    /// that this crate wrote; with another one, signatures are invalid and tell nothing (the nonce
    /// is random).
    pub(crate) fn from_stored(private: PrivateKey, edwards: [u8; 32]) -> Self {
        Self { private, edwards }
    }

    pub(crate) fn private(&self) -> &PrivateKey {
        &self.private
    }

    /// The compressed point, to be stored.
    pub(crate) fn edwards(&self) -> &[u8; 32] {
        &self.edwards
    }

    /// [`PrivateKey::sign`].
    pub(crate) fn sign(&self, message: &[u8], rng: &mut impl CryptoRng) -> [u8; 64] {
        let mut random = Zeroizing::new([0; 64]);
        rng.fill_bytes(random.as_mut_slice());
        self.private.sign_at(&self.edwards, message, &random)
    }
}

impl PublicKey {
    /// Verifies a signature (W§3.2). Keys of low order are not refused, as on the wire.
    ///
    /// # Errors
    /// [`InvalidSignature`], also for a signature that is not 64 bytes long.
    pub fn verify_signature(
        &self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        VerificationKey::new(*self).verify(message, signature)
    }

    /// The Edwards point with this sign, or that there is none (W§3.2).
    fn edwards(&self, sign: u8) -> Result<VerifyingKey, InvalidSignature> {
        // The point is found with sign 0 and negated, so that u = 0, which has no sign, takes both.
        let point = MontgomeryPoint(*self.as_u()).to_edwards(0).ok_or(InvalidSignature)?;
        Ok(VerifyingKey::from(if sign == 1 { -point } else { point }))
    }
}

/// A public key that verifies often: the point that its signatures name is found once. The sign
/// travels in the signatures and is the same in all of an honest sender's.
#[derive(Clone)]
pub(crate) struct VerificationKey {
    key: PublicKey,
    point: Option<(u8, VerifyingKey)>,
}

impl VerificationKey {
    pub(crate) fn new(key: PublicKey) -> Self {
        Self { key, point: None }
    }

    pub(crate) fn key(&self) -> &PublicKey {
        &self.key
    }

    /// [`PublicKey::verify_signature`]. Keeps the point of a signature that was good.
    pub(crate) fn verify(
        &mut self,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let signature: &[u8; 64] = signature.try_into().map_err(|_| InvalidSignature)?;
        let (r, s) = signature.split_first_chunk::<32>().ok_or(InvalidSignature)?;
        let mut s: [u8; 32] = s.try_into().map_err(|_| InvalidSignature)?;
        let [.., top] = &mut s;
        let sign = *top >> 7;
        *top &= 0x7F;
        if *top & 0xE0 != 0 {
            return Err(InvalidSignature);
        }
        // Values from L to 2^253 are taken, reduced (W§3.2 step 3).
        let s = Scalar::from_bytes_mod_order(s);
        let point = match self.point {
            Some((known, point)) if known == sign => point,
            _ => self.key.edwards(sign)?,
        };
        point
            .verify(message, &Signature::from_components(*r, s.to_bytes()))
            .map_err(|_| InvalidSignature)?;
        self.point = Some((sign, point));
        Ok(())
    }
}

fn scalar(hash: Sha512) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}
