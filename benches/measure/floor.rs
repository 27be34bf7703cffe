//! The primitives themselves, straight from the crates that the library uses.

use aes::Aes256;
use aes_gcm_siv::{Aes256GcmSiv, aead::AeadInOut};
use cbc::cipher::{
    BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, StreamCipher, block_padding::Pkcs7,
};
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use std::hint::black_box;
use x25519_dalek::{PublicKey, StaticSecret};

type HmacSha256 = Hmac<Sha256>;

/// X25519 with somebody's public key.
pub fn x25519(secret: &StaticSecret, public: &PublicKey) -> [u8; 32] {
    secret.diffie_hellman(public).to_bytes()
}

/// A public key for a private one.
pub fn x25519_public(secret: &StaticSecret) -> PublicKey {
    PublicKey::from(secret)
}

/// The two HMACs of a chain step.
pub fn chain_step(key: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    let keyed = HmacSha256::new_from_slice(key).unwrap();
    let seed = keyed.clone().chain_update([1]).finalize().into_bytes().into();
    let next = keyed.chain_update([2]).finalize().into_bytes().into();
    (seed, next)
}

/// HKDF-SHA-256 with `N` bytes of output.
pub fn hkdf<const N: usize>(salt: Option<&[u8]>, ikm: &[u8]) -> [u8; N] {
    let mut okm = [0; N];
    Hkdf::<Sha256>::new(salt, ikm).expand(b"WhisperMessageKeys", &mut okm).unwrap();
    okm
}

/// HMAC-SHA-256.
pub fn hmac(key: &[u8; 32], data: &[u8]) -> [u8; 32] {
    HmacSha256::new_from_slice(key).unwrap().chain_update(data).finalize().into_bytes().into()
}

/// AES-256-CBC with padding, in place, in a buffer with room for it.
pub fn cbc_encrypt(key: &[u8; 32], buffer: &mut [u8], len: usize) {
    let cipher = cbc::Encryptor::<Aes256>::new(key.into(), &[0; 16].into());
    black_box(cipher.encrypt_padded::<Pkcs7>(buffer, len).unwrap());
}

/// AES-256-CBC, in place, without looking at the padding.
pub fn cbc_decrypt(key: &[u8; 32], buffer: &mut [u8]) {
    let cipher = cbc::Decryptor::<Aes256>::new(key.into(), &[0; 16].into());
    black_box(cipher.decrypt_padded::<cbc::cipher::block_padding::NoPadding>(buffer).unwrap());
}

/// AES-256-CTR, in place.
pub fn ctr(key: &[u8; 32], buffer: &mut [u8]) {
    ctr::Ctr32BE::<Aes256>::new(key.into(), &[0; 16].into()).apply_keystream(buffer);
}

/// Verifies an Ed25519 signature: one double multiplication and a hash.
pub fn verify(key: &SigningKey, message: &[u8], signature: &Signature) {
    key.verifying_key().verify(message, signature).unwrap();
}

/// A signature to verify.
pub fn signature(key: &SigningKey, message: &[u8]) -> Signature {
    key.sign(message)
}

/// A multiplication of the Edwards base point, as signing needs one.
pub fn edwards_base(scalar: &Scalar) -> [u8; 32] {
    EdwardsPoint::mul_base(scalar).compress().0
}

/// SHA-512, as signing needs it twice and verifying once.
pub fn sha512(data: &[u8]) -> [u8; 64] {
    Sha512::digest(data).into()
}

/// AES-256-GCM-SIV, in place: the tag.
pub fn siv(key: &[u8; 32], buffer: &mut [u8]) -> [u8; 16] {
    let cipher = Aes256GcmSiv::new(key.into());
    cipher.encrypt_inout_detached(&[0; 12].into(), &[], buffer.into()).unwrap().into()
}
