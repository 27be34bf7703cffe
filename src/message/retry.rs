//! DecryptionErrorMessage and PlaintextContent (W§10.6): how a receiver says that it could not read.
//! What the sender does about it is the client's.

use super::{PreKeySignalMessage, SignalMessage};
use crate::address::Timestamp;
use crate::crypto::PublicKey;
use crate::wire::{self, DecodeError, in_field};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;

/// First byte of a [`PlaintextContent`].
const PLAINTEXT: u8 = 0xC0;
/// Last byte of its body: the end mark of ordinary padding.
const END_OF_CONTENT: u8 = 0x80;
/// Tag of the decryption error in the Content message of the apps.
const DECRYPTION_ERROR_TAG: u32 = 8;

/// "I could not decrypt this message of yours."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecryptionErrorMessage {
    /// The ratchet key of the failed message; absent for group messages.
    pub ratchet_key: Option<PublicKey>,
    /// The timestamp of the failed message.
    pub timestamp: Timestamp,
    /// The device that had sent it: any number, as it was written.
    pub device_id: u32,
}

impl DecryptionErrorMessage {
    /// For a failed ordinary message.
    pub fn for_message(message: &SignalMessage, timestamp: Timestamp, device_id: u32) -> Self {
        Self { ratchet_key: Some(*message.ratchet_key()), timestamp, device_id }
    }

    /// For a failed first message.
    pub fn for_first(message: &PreKeySignalMessage, timestamp: Timestamp, device_id: u32) -> Self {
        Self::for_message(message.message(), timestamp, device_id)
    }

    /// Reads the protobuf.
    ///
    /// # Errors
    /// [`DecodeError`] when it is malformed, has no timestamp, or its key is none.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fields = wire::message::DecryptionErrorMessage::decode(bytes)?;
        let timestamp = fields.timestamp.ok_or(DecodeError::Missing { field: "timestamp" })?;
        let ratchet_key = fields.ratchet_key.map(|key| PublicKey::decode(&key)).transpose();
        Ok(Self {
            ratchet_key: ratchet_key.map_err(in_field("ratchet_key"))?,
            timestamp: Timestamp::from_millis(timestamp),
            device_id: fields.device_id.unwrap_or(0),
        })
    }

    /// Writes the protobuf; timestamp and device id also when 0.
    pub fn encode(&self) -> Vec<u8> {
        wire::message::DecryptionErrorMessage {
            ratchet_key: self.ratchet_key.map(|key| Bytes::copy_from_slice(&key.serialize())),
            timestamp: Some(self.timestamp.as_millis()),
            device_id: Some(self.device_id),
        }
        .encode_to_vec()
    }
}

/// No decryption error can be taken out of a plaintext body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// The body is not a content message that ends with its end mark.
    #[error("the plaintext body cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// It is one, but says something else.
    #[error("the plaintext body holds no decryption error")]
    NoDecryptionError,
}

/// A message that travels unencrypted because the session is what is broken.
///
/// ```text
/// | 0xC0 | Content with field 8, perhaps more | 0x80 |
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaintextContent(Bytes);

impl PlaintextContent {
    /// Wraps a decryption error.
    pub fn new(error: &DecryptionErrorMessage) -> Self {
        Self::with_fields(error, &[])
    }

    /// Wraps a decryption error and further, encoded fields of the content: readers that do not know
    /// them pass over them.
    pub fn with_fields(error: &DecryptionErrorMessage, fields: &[u8]) -> Self {
        let mut out = alloc::vec![PLAINTEXT];
        prost::encoding::bytes::encode(DECRYPTION_ERROR_TAG, &error.encode(), &mut out);
        out.extend_from_slice(fields);
        out.push(END_OF_CONTENT);
        Self(out.into())
    }

    /// Looks at the first byte alone.
    ///
    /// # Errors
    /// [`DecodeError::TooShort`] when empty, [`DecodeError::UnknownVersion`] when it begins otherwise.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.first() {
            None => Err(DecodeError::TooShort { needed: 1, found: 0 }),
            Some(&PLAINTEXT) => Ok(Self(Bytes::copy_from_slice(bytes))),
            Some(&found) => Err(DecodeError::UnknownVersion { found }),
        }
    }

    /// The bytes of the wire.
    pub fn encode(&self) -> &[u8] {
        &self.0
    }

    /// Everything after the first byte.
    pub fn body(&self) -> &[u8] {
        self.0.split_first().map_or(&[], |(_, body)| body)
    }

    /// The encoded content: the body without its end mark, if it has one.
    pub fn content(&self) -> &[u8] {
        self.body().strip_suffix(&[END_OF_CONTENT]).unwrap_or(self.body())
    }

    /// The decryption error inside. The body must end with exactly its end mark.
    ///
    /// # Errors
    /// [`RetryError`].
    pub fn decryption_error(&self) -> Result<DecryptionErrorMessage, RetryError> {
        let missing = DecodeError::Missing { field: "end mark" };
        let (end, content) = self.body().split_last().ok_or(missing)?;
        if *end != END_OF_CONTENT {
            return Err(missing.into());
        }
        let content = wire::message::RetryContent::decode(content).map_err(DecodeError::from)?;
        let error = content.decryption_error_message.ok_or(RetryError::NoDecryptionError)?;
        Ok(DecryptionErrorMessage::decode(&error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_fields_are_there_for_who_knows_them_and_no_hindrance_for_who_does_not() {
        let timestamp = Timestamp::from_millis(7);
        let error = DecryptionErrorMessage { ratchet_key: None, timestamp, device_id: 1 };
        let fields = crate::content::Content { sequence: 5, ..Default::default() }.encode();
        let with = PlaintextContent::with_fields(&error, &fields);
        assert_eq!(with.decryption_error(), Ok(error));
        assert!(with.content().ends_with(&fields));
        assert_eq!(PlaintextContent::with_fields(&error, &[]), PlaintextContent::new(&error));
    }
}
