//! Signed tokens (RFC 7519, compact form) for push services: two algorithms, no verification.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use web_push_native::p256::ecdsa::signature::Signer;
use web_push_native::p256::ecdsa::{Signature, SigningKey};

pub(super) fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `header.claims`, over which the signature goes.
fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string()), base64url(claims.to_string()))
}

/// By ECDSA on P-256 with SHA-256.
pub(super) fn es256(header: &Value, claims: &Value, key: &SigningKey) -> String {
    let unsigned = unsigned(header, claims);
    let signature: Signature = key.sign(unsigned.as_bytes());
    format!("{unsigned}.{}", base64url(signature.to_bytes()))
}

/// By RSASSA-PKCS1-v1_5 with SHA-256. None if the system has no randomness.
pub(super) fn rs256(
    header: &Value,
    claims: &Value,
    key: &ring::signature::RsaKeyPair,
) -> Option<String> {
    let unsigned = unsigned(header, claims);
    let mut signature = vec![0; key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    let padding = &ring::signature::RSA_PKCS1_SHA256;
    key.sign(padding, &random, unsigned.as_bytes(), &mut signature).ok()?;
    Some(format!("{unsigned}.{}", base64url(signature)))
}
