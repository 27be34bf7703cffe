//! W§18.1. Attachments: files that are too large for a message. The incremental MAC is in
//! `incremental.rs`; encryption, padding and digest come later.

mod incremental;

pub use incremental::{ChunkSize, IncrementalMac, IncrementalMacError, IncrementalVerifier};

use crate::crypto::KeyError;
use crate::crypto::secret::Secret;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

/// What opens one attachment: AES-256 key (32 bytes) and HMAC key (32 bytes), wiped when dropped.
///
/// One pair of keys, one file. `Clone` is there because they travel in messages to several devices.
#[derive(Clone)]
pub struct AttachmentKeys(Secret<64>);

impl AttachmentKeys {
    /// Fresh keys: draws 64 bytes.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = Secret::zeroed();
        rng.fill_bytes(bytes.as_mut_bytes());
        Self(bytes)
    }

    /// Reads 64 bytes.
    ///
    /// # Errors
    /// [`KeyError::Length`] for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes: [u8; 64] =
            bytes.try_into().map_err(|_| KeyError::Length { expected: 64, found: bytes.len() })?;
        Ok(Self(Secret::new(bytes)))
    }

    /// The 64 bytes.
    pub fn as_bytes(&self) -> &[u8; 64] {
        self.0.as_bytes()
    }
}

/// In constant time.
impl PartialEq for AttachmentKeys {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AttachmentKeys {}

impl core::fmt::Debug for AttachmentKeys {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("AttachmentKeys")
    }
}
