//! Identity key pairs and the three kinds of prekey, as libsignal stores them (W§17).

use super::{ImportError, pair};
use crate::address::Timestamp;
use crate::crypto::{KemKeyPair, KemSecretKey};
use crate::identity::IdentityKeyPair;
use crate::prekey::{KemPreKey, KemPreKeyId, PreKey, PreKeyId, SignedPreKey, SignedPreKeyId};
use crate::wire::storage;
use prost::Message;

const DAMAGED: ImportError = ImportError::Damaged;

impl IdentityKeyPair {
    /// Takes over a key pair as libsignal stores it. A bare private key is read by
    /// [`crate::PrivateKey::from_bytes`].
    ///
    /// # Errors
    /// [`ImportError::Damaged`], also when the halves do not belong together.
    pub fn import_libsignal(record: &[u8]) -> Result<Self, ImportError> {
        let stored = storage::IdentityKeyPair::decode(record).map_err(|_| DAMAGED)?;
        let pair = pair(&stored.private, &stored.public).ok_or(DAMAGED)?;
        Ok(pair.private().clone().into())
    }
}

impl PreKey {
    /// Takes over a one-time EC prekey as libsignal stores it.
    ///
    /// # Errors
    /// [`ImportError::Damaged`], also when the halves do not belong together.
    pub fn import_libsignal(record: &[u8]) -> Result<Self, ImportError> {
        let stored = storage::PreKey::decode(record).map_err(|_| DAMAGED)?;
        let pair = pair(&stored.private, &stored.public).ok_or(DAMAGED)?;
        Ok(Self { id: PreKeyId(stored.id), pair })
    }
}

impl SignedPreKey {
    /// Takes over a signed EC prekey as libsignal stores it. Its signature is not checked: a peer that
    /// fetches it does so.
    ///
    /// # Errors
    /// [`ImportError::Damaged`], also when the halves do not belong together.
    pub fn import_libsignal(record: &[u8]) -> Result<Self, ImportError> {
        let stored = storage::SignedPreKey::decode(record).map_err(|_| DAMAGED)?;
        let pair = pair(&stored.private, &stored.public).ok_or(DAMAGED)?;
        let signature = stored.signature[..].try_into().map_err(|_| DAMAGED)?;
        let created = Timestamp::from_millis(stored.timestamp);
        Ok(Self { id: SignedPreKeyId(stored.id), pair, signature, created })
    }
}

impl KemPreKey {
    /// Takes over a KEM prekey as libsignal stores it, one-time or last-resort: which of the two it is
    /// stands in the app's own tables. Its signature is not checked: a peer that fetches it does so.
    ///
    /// # Errors
    /// [`ImportError::Damaged`], also when the halves do not belong together or are of another kind than
    /// round-3 Kyber-1024.
    pub fn import_libsignal(record: &[u8]) -> Result<Self, ImportError> {
        let stored = storage::SignedPreKey::decode(record).map_err(|_| DAMAGED)?;
        let secret = KemSecretKey::decode(&stored.private).map_err(|_| DAMAGED)?;
        let pair = KemKeyPair::from_secret(secret);
        if pair.public().serialize() != stored.public {
            return Err(DAMAGED);
        }
        let signature = stored.signature[..].try_into().map_err(|_| DAMAGED)?;
        let created = Timestamp::from_millis(stored.timestamp);
        Ok(Self { id: KemPreKeyId(stored.id), pair, signature, created })
    }
}
