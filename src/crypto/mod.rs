//! The only folder that names a primitive crate (W§1–3), but for the incremental ML-KEM of
//! `spqr/mlkem.rs`, which nothing else uses.
//! It knows keys, signatures, ciphers and derivations, and nothing of what a protocol does with them.

pub(crate) mod cbc_stream;
pub(crate) mod cipher;
pub(crate) mod curve;
pub(crate) mod hash;
pub(crate) mod kdf;
pub(crate) mod kem;
mod kyber;
pub(crate) mod secret;
mod x25519;
mod xeddsa;

pub use curve::{KeyError, KeyPair, PrivateKey, PublicKey};
pub use kem::{KemCiphertext, KemKeyPair, KemPublicKey, KemSecretKey};
pub use secret::SecretBytes;
pub use xeddsa::InvalidSignature;
pub(crate) use xeddsa::{SigningKey, VerificationKey};
