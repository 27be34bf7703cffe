//! W§18.1. Attachments: files that are too large for a message. A file is encrypted under keys of its
//! own and left with a relay; what opens it travels in a message (`content/`).
//!
//! ```text
//! | IV 16 | AES-256-CBC of the file and its zeros, PKCS#7 | HMAC-SHA-256 of all before it, 32 |
//! ```
//!
//! `encrypt.rs` makes it and `decrypt.rs` opens it, both piece by piece in bounded memory;
//! `incremental.rs` has the values by which parts of it are checked.

mod decrypt;
mod encrypt;
mod incremental;

pub use decrypt::{AttachmentDecryptor, AttachmentVerifier};
pub use encrypt::{AttachmentEncryptor, Sealed, Sealing, encrypted_attachment_len};
pub use incremental::{
    ChunkSize, IncrementalMac, IncrementalMacError, IncrementalMacs, IncrementalVerifier,
};

use crate::crypto::KeyError;
use crate::crypto::secret::Secret;
use rand_core::CryptoRng;
use subtle::ConstantTimeEq;

const IV: usize = 16;
const MAC: usize = 32;

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

    /// AES-256 key and HMAC key.
    fn split(&self) -> (Secret<32>, Secret<32>) {
        self.0.split()
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

/// An attachment could not be encrypted or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachmentError {
    /// Encrypted, it would not fit 4 GiB.
    #[error("a file of {size} bytes is too large for an attachment")]
    TooLarge {
        /// Bytes of the file.
        size: u64,
    },
    /// The file has not the size that was stated when it was begun.
    #[error("the file has not the {stated} bytes that were stated: begin again with fresh keys")]
    SizeChanged {
        /// Bytes that were stated.
        stated: u64,
    },
    /// MAC, digest or an incremental value does not match, or the length cannot be: changed, cut,
    /// lengthened, or another file. Fetch it again.
    #[error("the file is not the one that was sent: fetch it again")]
    Damaged,
    /// Authentic, and shorter than its sender stated. Fetching it again does not help.
    #[error("the file has {found} bytes, its sender stated {stated}")]
    TooShort {
        /// Bytes that the sender stated.
        stated: u64,
        /// Bytes that are there, zeros included.
        found: u64,
    },
}
