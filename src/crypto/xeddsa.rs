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
        let k = self.0.as_bytes();
        let a = Zeroizing::new(Scalar::from_bytes_mod_order(*k));
        let public = EdwardsPoint::mul_base(&a).compress();
        let nonce = Sha512::new().chain_update(NONCE_PREFIX).chain_update(k).chain_update(message);
        let r = Zeroizing::new(scalar(nonce.chain_update(random)));
        let commitment = EdwardsPoint::mul_base(&r).compress();
        let h = scalar(
            Sha512::new().chain_update(commitment.0).chain_update(public.0).chain_update(message),
        );
        let s = *r + h * *a;

        let mut signature = Signature::from_components(commitment.0, s.to_bytes()).to_bytes();
        let sign = public.0.last().map_or(0, |byte| byte & 0x80);
        if let Some(last) = signature.last_mut() {
            *last = (*last & 0x7F) | sign;
        }
        signature
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
        // The point is found with sign 0 and negated, so that u = 0, which has no sign, takes both.
        let point = MontgomeryPoint(*self.as_u()).to_edwards(0).ok_or(InvalidSignature)?;
        let point = if sign == 1 { -point } else { point };
        VerifyingKey::from(point)
            .verify(message, &Signature::from_components(*r, s.to_bytes()))
            .map_err(|_| InvalidSignature)
    }
}

fn scalar(hash: Sha512) -> Scalar {
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}
