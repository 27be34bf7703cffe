//! W§15.3. The form in which a message for many goes to a relay, and its split into what each of
//! them receives. No secret is needed for it: the relay calls it, and learns recipients, not senders.
//!
//! ```text
//! 0x23 · count: varint · entries · ephemeral public: 32 · ciphertext
//! recipient: service id 17 · devices · C: 32 · AT: 16      excluded: service id 17 · 0x00
//! device: id 1 · u16: another one follows (bit 15), registration id (bits 13..=0)
//! ```
//!
//! Releases long gone wrote 0x22 first and accounts as 16 bytes; that is still read.
//!
//! For our relay the form is padded behind its end ([`SentMessage::pad`]): every recipient gets the padding too.

use super::error::{SealError, SplitError};
use super::v2::{RECEIVED_BYTE, RECIPIENT_KEYS, SealedRecipient};
use crate::address::{DeviceId, ServiceId};
use crate::padding::{envelope_size, pad_to};
use crate::stored::Reader;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

const SENT_BYTE: u8 = 0x23;
/// Written by releases that knew accounts alone.
const SENT_BYTE_ACCOUNTS: u8 = 0x22;

const ANOTHER_DEVICE: u16 = 0x8000;
const REGISTRATION_ID: u16 = 0x3FFF;

/// Bytes before the shared part in what a recipient receives.
const HEAD: usize = 1 + RECIPIENT_KEYS;
/// Bytes of an ephemeral key: the least that every recipient gets.
const MIN_SHARED: usize = 32;

/// A device of a recipient.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecipientDevice {
    /// Its id.
    pub device_id: DeviceId,
    /// Its registration id, 14 bits: the relay refuses a message for a device set up anew.
    pub registration_id: u32,
}

/// Refuses what no relay could split (X13).
pub(super) fn check(
    recipients: &[SealedRecipient],
    excluded: &[ServiceId],
) -> Result<(), SealError> {
    for (place, recipient) in recipients.iter().enumerate() {
        if recipient.devices.is_empty() {
            return Err(SealError::NoDevice { place });
        }
        let too_large = |device: &&RecipientDevice| device.registration_id > REGISTRATION_ID.into();
        if let Some(device) = recipient.devices.iter().find(too_large) {
            return Err(SealError::RegistrationId { place, found: device.registration_id });
        }
    }
    let set: BTreeSet<&ServiceId> = excluded.iter().collect();
    if set.len() < excluded.len() || recipients.iter().any(|it| set.contains(&it.service_id)) {
        return Err(SealError::Excluded);
    }
    Ok(())
}

/// Writes everything before the shared part, in a buffer with room for that too. What is written
/// passed [`check`].
pub(super) fn begin(
    recipients: &[SealedRecipient],
    keys: &[[u8; RECIPIENT_KEYS]],
    excluded: &[ServiceId],
    shared_len: usize,
) -> Vec<u8> {
    let count = (recipients.len() + excluded.len()) as u64;
    let devices: usize = recipients.iter().map(|it| it.devices.len()).sum();
    let entries = recipients.len() * (17 + RECIPIENT_KEYS) + devices * 3 + excluded.len() * 18;
    let mut out = Vec::with_capacity(1 + encoded_len_varint(count) + entries + shared_len);
    out.push(SENT_BYTE);
    encode_varint(count, &mut out);
    for (recipient, keys) in recipients.iter().zip(keys) {
        out.extend_from_slice(&recipient.service_id.to_fixed());
        for (left, device) in (0..recipient.devices.len()).rev().zip(&recipient.devices) {
            let another = if left > 0 { ANOTHER_DEVICE } else { 0 };
            let registration_id = device.registration_id as u16 & REGISTRATION_ID;
            out.push(device.device_id.get());
            out.extend_from_slice(&(another | registration_id).to_be_bytes());
        }
        out.extend_from_slice(keys);
    }
    for id in excluded {
        out.extend_from_slice(&id.to_fixed());
        out.push(0);
    }
    out
}

/// A message for many, as it goes to a relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentMessage {
    recipients: Vec<SentRecipient>,
    excluded: Vec<ServiceId>,
    shared: Bytes,
}

/// Somebody that a [`SentMessage`] is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentRecipient {
    service_id: ServiceId,
    devices: Vec<RecipientDevice>,
    keys: [u8; RECIPIENT_KEYS],
}

impl SentRecipient {
    /// The account.
    pub const fn service_id(&self) -> ServiceId {
        self.service_id
    }

    /// Its devices in the order of the message: a device may stand there twice.
    pub fn devices(&self) -> &[RecipientDevice] {
        &self.devices
    }

    /// The 49 bytes that go before [`SentMessage::shared`] in what this recipient receives.
    pub fn head(&self) -> [u8; HEAD] {
        let mut head = [RECEIVED_BYTE; HEAD];
        let (_, keys) = head.split_at_mut(1);
        keys.copy_from_slice(&self.keys);
        head
    }
}

impl SentMessage {
    /// Reads a message of either form; copies its bytes once.
    ///
    /// # Errors
    /// [`SplitError`] by row X15. Memory is bounded by the length of the input, whatever it says of itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, SplitError> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// [`SentMessage::decode`] without a copy.
    ///
    /// # Errors
    /// As [`SentMessage::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self, SplitError> {
        let (entries, shared) = read(&bytes)?;
        let shared = bytes.slice(bytes.len() - shared.len()..);
        Ok(Self { recipients: entries.recipients, excluded: entries.excluded, shared })
    }

    /// Pads a sent message in place for a relay: what each recipient receives is then of one of
    /// [`ENVELOPE_SIZES`](crate::ENVELOPE_SIZES), and [`unpad_envelope`](crate::unpad_envelope) takes the padding off.
    ///
    /// # Errors
    /// [`SplitError`] when these bytes are no sent message, or too long for the largest size; nothing was changed.
    pub fn pad(sent: &mut Vec<u8>) -> Result<(), SplitError> {
        let (_, shared) = read(sent)?;
        let received = HEAD + shared.len();
        let padding = envelope_size(received)? - received;
        let padded = sent.len() + padding;
        pad_to(sent, padded);
        Ok(())
    }

    /// Who gets it, each once, in the order of the message.
    pub fn recipients(&self) -> &[SentRecipient] {
        &self.recipients
    }

    /// Who gets nothing although they belong to the group.
    pub fn excluded(&self) -> &[ServiceId] {
        &self.excluded
    }

    /// What every recipient gets behind its [`SentRecipient::head`]. Shared with the input, not copied.
    pub const fn shared(&self) -> &Bytes {
        &self.shared
    }

    /// Bytes of what each recipient receives.
    pub fn received_len(&self) -> usize {
        HEAD + self.shared.len()
    }

    /// What this recipient receives: its head and one copy of the shared part.
    pub fn received(&self, recipient: &SentRecipient) -> Vec<u8> {
        let head = recipient.head();
        let mut out = Vec::with_capacity(self.received_len());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.shared);
        out
    }

    /// What the only recipient receives.
    ///
    /// # Errors
    /// [`SplitError::NotOne`] when there are more, or none (X16).
    pub fn received_by_one(&self) -> Result<Vec<u8>, SplitError> {
        match &self.recipients[..] {
            [recipient] => Ok(self.received(recipient)),
            others => Err(SplitError::NotOne { found: others.len() }),
        }
    }
}

/// Reads the entries; the shared part is the rest.
fn read(bytes: &[u8]) -> Result<(Entries, &[u8]), SplitError> {
    let mut input = Reader(bytes);
    let read_id = match input.u8().ok_or(SplitError::Empty)? {
        SENT_BYTE => read_fixed,
        SENT_BYTE_ACCOUNTS => read_account,
        found => return Err(SplitError::UnknownVersion { found }),
    };
    let count = read_count(&mut input)?;
    let mut entries = Entries::default();
    for _ in 0..count {
        let id = read_id(&mut input)?;
        match read_devices(&mut input)? {
            None => entries.exclude(id)?,
            Some(devices) => {
                let keys = input.array().ok_or(SplitError::Truncated)?;
                entries.add(id, devices, *keys)?;
            }
        }
    }
    if input.0.len() < MIN_SHARED {
        return Err(SplitError::Truncated);
    }
    Ok((entries, input.0))
}

/// What was read so far. A recipient may come again and then adds devices to its first entry.
#[derive(Default)]
struct Entries {
    recipients: Vec<SentRecipient>,
    excluded: Vec<ServiceId>,
    /// The place of a recipient, or `None` for who is excluded.
    seen: BTreeMap<ServiceId, Option<usize>>,
}

impl Entries {
    fn exclude(&mut self, id: ServiceId) -> Result<(), SplitError> {
        match self.seen.insert(id, None) {
            None => self.excluded.push(id),
            Some(_) => return Err(SplitError::Excluded),
        }
        Ok(())
    }

    fn add(
        &mut self,
        id: ServiceId,
        devices: Vec<RecipientDevice>,
        keys: [u8; RECIPIENT_KEYS],
    ) -> Result<(), SplitError> {
        let place = *self.seen.entry(id).or_insert(Some(self.recipients.len()));
        let place = place.ok_or(SplitError::Excluded)?;
        match self.recipients.get_mut(place) {
            Some(first) => first.devices.extend(devices),
            None => self.recipients.push(SentRecipient { service_id: id, devices, keys }),
        }
        Ok(())
    }
}

/// The number of entries, which must be written in as few bytes as it needs.
fn read_count(input: &mut Reader<'_>) -> Result<u64, SplitError> {
    let mut rest = input.0;
    let count = decode_varint(&mut rest).map_err(|_| SplitError::Truncated)?;
    if input.0.len() - rest.len() != encoded_len_varint(count) {
        return Err(SplitError::Field { field: "the count" });
    }
    input.0 = rest;
    Ok(count)
}

fn read_fixed(input: &mut Reader<'_>) -> Result<ServiceId, SplitError> {
    let id = input.bytes(17).ok_or(SplitError::Truncated)?;
    ServiceId::from_fixed(id).map_err(|_| SplitError::Field { field: "a service id" })
}

fn read_account(input: &mut Reader<'_>) -> Result<ServiceId, SplitError> {
    input.array().map(|id| ServiceId::aci(*id)).ok_or(SplitError::Truncated)
}

/// The devices of an entry, or `None` when it excludes.
fn read_devices(input: &mut Reader<'_>) -> Result<Option<Vec<RecipientDevice>>, SplitError> {
    let mut devices = Vec::new();
    loop {
        let id = input.u8().ok_or(SplitError::Truncated)?;
        if id == 0 && devices.is_empty() {
            return Ok(None);
        }
        let device_id = DeviceId::new(id).ok_or(SplitError::Field { field: "a device id" })?;
        let bits = input.u16().ok_or(SplitError::Truncated)?;
        let registration_id = (bits & REGISTRATION_ID).into();
        devices.push(RecipientDevice { device_id, registration_id });
        if bits & ANOTHER_DEVICE == 0 {
            return Ok(Some(devices));
        }
    }
}
