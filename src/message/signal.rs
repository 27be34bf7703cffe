//! SignalMessage (W§8.5, 8.6, 10.2): one ciphertext of a session.
//!
//! ```text
//! | version 1 | protobuf: ratchet key, counters, ciphertext, … | MAC 8 |
//! ```

use super::SessionVersion;
use crate::address::Address;
use crate::crypto::PublicKey;
use crate::crypto::cipher::{cbc_append, cbc_len, cbc_open};
use crate::crypto::kdf::HmacSha256;
use crate::identity::IdentityKey;
use crate::keys::MessageKeys;
use crate::wire::{self, DecodeError, in_field};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

const MAC_LEN: usize = 8;
const MIN_LEN: usize = 1 + MAC_LEN;

/// The 36 bytes of field 6: who sends to whom.
pub(crate) struct Addresses([u8; 36]);

impl Addresses {
    pub(crate) fn new(sender: &Address, recipient: &Address) -> Self {
        let mut out = [0; 36];
        let (from, to) = out.split_at_mut(18);
        for (half, address) in [(from, sender), (to, recipient)] {
            if let Some((device, id)) = half.split_last_mut() {
                id.copy_from_slice(&address.service_id.to_fixed());
                *device = address.device_id.get();
            }
        }
        Self(out)
    }
}

/// The two identities in the order of the MAC: sender first.
#[derive(Clone, Copy)]
pub(crate) struct Identities<'a> {
    pub(crate) sender: &'a IdentityKey,
    pub(crate) receiver: &'a IdentityKey,
}

/// All of a message but its body.
pub(crate) struct Header<'a> {
    pub(crate) version: SessionVersion,
    pub(crate) ratchet_key: &'a PublicKey,
    pub(crate) counter: u32,
    pub(crate) previous_counter: u32,
    /// Empty: the field is left out.
    pub(crate) pq_message: &'a [u8],
    pub(crate) addresses: Option<Addresses>,
}

impl Header<'_> {
    /// Encrypts, encodes and authenticates in one buffer that is allocated once.
    pub(crate) fn seal(
        &self,
        keys: &MessageKeys,
        identities: Identities<'_>,
        plaintext: &[u8],
    ) -> Vec<u8> {
        let body_len = cbc_len(plaintext.len());
        // Keys of one byte each, lengths and counters of at most ten.
        let fixed = 1 + 35 + 2 * 11 + 11 + 11 + 38 + MAC_LEN;
        let mut out = Vec::with_capacity(fixed + body_len + self.pq_message.len());
        out.push(self.version.byte());
        put_bytes(&mut out, 1, &self.ratchet_key.serialize());
        put_number(&mut out, 2, self.counter);
        put_number(&mut out, 3, self.previous_counter);
        put_len(&mut out, 4, body_len);
        cbc_append(&mut out, &keys.cipher, &keys.iv, plaintext);
        if !self.pq_message.is_empty() {
            put_bytes(&mut out, 5, self.pq_message);
        }
        if let Some(addresses) = &self.addresses {
            put_bytes(&mut out, 6, &addresses.0);
        }
        let mac = mac(keys, identities, &out).finish();
        out.extend(mac.iter().take(MAC_LEN));
        out
    }
}

fn put_number(out: &mut Vec<u8>, tag: u32, number: u32) {
    encode_key(tag, WireType::Varint, out);
    encode_varint(u64::from(number), out);
}

fn put_len(out: &mut Vec<u8>, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
    debug_assert!(encoded_len_varint(len as u64) <= 10);
}

fn put_bytes(out: &mut Vec<u8>, tag: u32, bytes: &[u8]) {
    put_len(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

fn mac(keys: &MessageKeys, identities: Identities<'_>, signed: &[u8]) -> HmacSha256 {
    HmacSha256::new(keys.mac.as_bytes())
        .chain(&identities.sender.serialize())
        .chain(&identities.receiver.serialize())
        .chain(signed)
}

/// A received ordinary message, decoded but not yet verified. It keeps the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignalMessage {
    serialized: Bytes,
    version: SessionVersion,
    ratchet_key: PublicKey,
    counter: u32,
    previous_counter: u32,
    ciphertext: Bytes,
    pq_ratchet: Bytes,
    addresses: Option<Bytes>,
}

impl SignalMessage {
    /// Reads a message; copies its bytes once.
    ///
    /// # Errors
    /// [`DecodeError`] in the order of W§10.1: length (9 bytes at least), version, protobuf and
    /// fields, ratchet key.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// [`SignalMessage::decode`] without a copy.
    ///
    /// # Errors
    /// As [`SignalMessage::decode`].
    pub fn from_bytes(serialized: Bytes) -> Result<Self, DecodeError> {
        let found = serialized.len();
        let first = match serialized.first() {
            Some(first) if found >= MIN_LEN => *first,
            _ => return Err(DecodeError::TooShort { needed: MIN_LEN, found }),
        };
        let version = SessionVersion::from_byte(first)?;
        let fields = wire::message::SignalMessage::decode(serialized.slice(1..found - MAC_LEN))?;
        let ratchet_key =
            fields.ratchet_key.ok_or(DecodeError::Missing { field: "ratchet_key" })?;
        let counter = fields.counter.ok_or(DecodeError::Missing { field: "counter" })?;
        let ciphertext = fields.ciphertext.ok_or(DecodeError::Missing { field: "ciphertext" })?;
        Ok(Self {
            version,
            ratchet_key: PublicKey::decode(&ratchet_key).map_err(in_field("ratchet_key"))?,
            counter,
            previous_counter: fields.previous_counter.unwrap_or(0),
            ciphertext,
            pq_ratchet: fields.pq_ratchet.unwrap_or_default(),
            addresses: fields.addresses,
            serialized,
        })
    }

    /// The bytes as they came.
    pub fn encode(&self) -> &[u8] {
        &self.serialized
    }

    /// The version of the session that it belongs to.
    pub fn version(&self) -> SessionVersion {
        self.version
    }

    /// The sender's ratchet key.
    pub fn ratchet_key(&self) -> &PublicKey {
        &self.ratchet_key
    }

    /// Position in the sender's chain, from 0.
    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// What the sender says of its chain before: messages sent in it, less one. Not used (W§8.7).
    pub fn previous_counter(&self) -> u32 {
        self.previous_counter
    }

    /// Field 5: the post-quantum ratchet's message, empty when absent.
    pub(crate) fn pq_ratchet(&self) -> &[u8] {
        &self.pq_ratchet
    }

    /// Steps 5 to 7 of W§9: MAC, addresses, body. `None` says nothing of which one failed.
    pub(crate) fn open(
        &self,
        keys: &MessageKeys,
        identities: Identities<'_>,
        sender: &Address,
        recipient: &Address,
    ) -> Option<Vec<u8>> {
        let (signed, tag) = self.serialized.split_last_chunk::<MAC_LEN>()?;
        if !mac(keys, identities, signed).verify_truncated(tag) {
            return None;
        }
        if let Some(addresses) = &self.addresses
            && **addresses != Addresses::new(sender, recipient).0
        {
            return None;
        }
        cbc_open(&keys.cipher, &keys.iv, &self.ciphertext)
    }
}
