//! PreKeySignalMessage (W§10.3): a message that also says how its session was begun.
//!
//! ```text
//! | version 1 | protobuf: prekey ids, base key, identity key, KEM ciphertext, a SignalMessage |
//! ```

use super::{SessionVersion, SignalMessage};
use crate::crypto::PublicKey;
use crate::identity::IdentityKey;
use crate::prekey::{KemPreKeyId, PreKeyId, SignedPreKeyId};
use crate::wire::{self, DecodeError, in_field};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;

/// A received first message, decoded but not yet verified.
///
/// Its ids, registration id and version byte are under no MAC: they only say which keys to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreKeySignalMessage {
    version: SessionVersion,
    registration_id: u32,
    one_time: Option<PreKeyId>,
    signed: SignedPreKeyId,
    kem: Option<(KemPreKeyId, Bytes)>,
    base_key: PublicKey,
    identity_key: IdentityKey,
    message: SignalMessage,
}

/// The prekeys that a first message names: load them, unless the record has the session already
/// ([`crate::SessionRecord::has_session_of`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The one-time EC prekey, if one was used.
    pub one_time: Option<PreKeyId>,
    /// The signed EC prekey.
    pub signed: SignedPreKeyId,
    /// The KEM prekey; always there in version 4, and in version 3 of no use.
    pub kem: Option<KemPreKeyId>,
    /// The initiator's base key: what a last-resort KEM prekey must not see twice (W§7.5).
    pub base_key: PublicKey,
}

impl PreKeySignalMessage {
    /// Reads a message; copies its bytes once.
    ///
    /// # Errors
    /// [`DecodeError`] in the order of W§10.3: empty, version, protobuf and fields, base key, the
    /// KEM part, identity key, and last the message inside.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// [`PreKeySignalMessage::decode`] without a copy.
    ///
    /// # Errors
    /// As [`PreKeySignalMessage::decode`].
    pub fn from_bytes(serialized: Bytes) -> Result<Self, DecodeError> {
        let first = serialized.first().ok_or(DecodeError::TooShort { needed: 1, found: 0 })?;
        let version = SessionVersion::from_byte(*first)?;
        let fields = wire::message::PreKeySignalMessage::decode(serialized.slice(1..))?;
        let missing = |field| DecodeError::Missing { field };
        let base_key = fields.base_key.ok_or(missing("base_key"))?;
        let identity_key = fields.identity_key.ok_or(missing("identity_key"))?;
        let message = fields.message.ok_or(missing("message"))?;
        let signed = fields.signed_pre_key_id.ok_or(missing("signed_pre_key_id"))?;
        let base_key = PublicKey::decode(&base_key).map_err(in_field("base_key"))?;
        let kem = match (fields.kyber_pre_key_id, fields.kyber_ciphertext) {
            (Some(id), Some(ciphertext)) => Some((KemPreKeyId(id), ciphertext)),
            (None, None) if version == SessionVersion::V3 => None,
            _ => return Err(DecodeError::KemPart),
        };
        Ok(Self {
            version,
            registration_id: fields.registration_id.unwrap_or(0),
            one_time: fields.pre_key_id.map(PreKeyId),
            signed: SignedPreKeyId(signed),
            kem,
            base_key,
            identity_key: IdentityKey::decode(&identity_key).map_err(in_field("identity_key"))?,
            message: SignalMessage::from_bytes(message)?,
        })
    }

    /// The version of the session that it begins.
    pub fn version(&self) -> SessionVersion {
        self.version
    }

    /// The sender's registration id; 0 when it gave none.
    pub fn registration_id(&self) -> u32 {
        self.registration_id
    }

    /// The identity that the sender claims.
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// The sender's base key, which names the session.
    pub fn base_key(&self) -> &PublicKey {
        &self.base_key
    }

    /// The ordinary message inside.
    pub fn message(&self) -> &SignalMessage {
        &self.message
    }

    /// The prekeys that it names.
    pub fn needs(&self) -> Needs {
        Needs {
            one_time: self.one_time,
            signed: self.signed,
            kem: self.kem.as_ref().map(|(id, _)| *id),
            base_key: self.base_key,
        }
    }

    /// The KEM ciphertext as received: its type and length are judged when it is used (P7).
    pub(crate) fn kem_ciphertext(&self) -> Option<&[u8]> {
        self.kem.as_ref().map(|(_, ciphertext)| &ciphertext[..])
    }
}

/// What an initiator repeats around each message until it is answered.
pub(crate) struct Envelope<'a> {
    pub(crate) version: SessionVersion,
    pub(crate) registration_id: u32,
    pub(crate) one_time: Option<PreKeyId>,
    pub(crate) signed: SignedPreKeyId,
    pub(crate) kem: Option<(KemPreKeyId, &'a [u8])>,
    pub(crate) base_key: &'a PublicKey,
    pub(crate) identity_key: &'a IdentityKey,
}

impl Envelope<'_> {
    /// Puts an encoded SignalMessage inside.
    pub(crate) fn wrap(&self, message: Vec<u8>) -> Vec<u8> {
        let fields = wire::message::PreKeySignalMessage {
            pre_key_id: self.one_time.map(|id| id.0),
            base_key: Some(Bytes::copy_from_slice(&self.base_key.serialize())),
            identity_key: Some(Bytes::copy_from_slice(&self.identity_key.serialize())),
            message: Some(message.into()),
            registration_id: Some(self.registration_id),
            signed_pre_key_id: Some(self.signed.0),
            kyber_pre_key_id: self.kem.map(|(id, _)| id.0),
            kyber_ciphertext: self.kem.map(|(_, bytes)| Bytes::copy_from_slice(bytes)),
        };
        let mut out = Vec::with_capacity(1 + fields.encoded_len());
        out.push(self.version.byte());
        fields.encode_raw(&mut out);
        out
    }
}
