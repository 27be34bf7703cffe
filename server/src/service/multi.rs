//! W§15.3: one sealed-sender version 2 message for many recipients, split into what each of them gets.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use tuckseal::service::{
    DeviceMismatch, MultiAccepted, MultiSubmission, RecipientAccess, RecipientRefusal,
};

use super::accounts::sha256;
use super::error::ServiceError;
use super::relay::{Relay, dedup};
use crate::storage::{AccountId, Append, AppendAnswer, Authority, Mismatch, NewMessage, Recipient};

/// Recipients of one transaction.
const RECIPIENTS: usize = 128;
/// A shared part of fewer bytes is stored with every envelope: looking it up would cost more.
const SHARED_MIN: usize = 1024;

/// By what right a submission for many comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiRight {
    /// A device has shown its token.
    Token,
    /// The access key of each recipient, in the submission.
    AccessKeys,
}

impl Relay {
    /// Stores a submission for many recipients, for each of them on its own, and wakes those that are connected.
    /// The same submission id again stores nothing twice.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::TooLarge`] before anything is stored; the store's, after which
    /// some recipients may have it: repeat with the same submission id.
    pub async fn submit_multi(
        &self,
        right: MultiRight,
        submission: MultiSubmission,
    ) -> Result<MultiAccepted, ServiceError> {
        let id = submission_id(&submission)?;
        let sent = self.split(&submission.sent)?;
        let keys = access_keys(right, &submission.access)?;
        let authority = |account: AccountId| match right {
            MultiRight::Token => Authority::Token,
            // Without its key a recipient is refused in the same way as with a wrong one.
            MultiRight::AccessKeys => {
                Authority::AccessHash(keys.get(&account).map_or([0; 32], sha256_of))
            }
        };
        let mut refused: Vec<RecipientRefusal> =
            sent.others.iter().map(|account| refusal(*account, None)).collect();
        let parts: Vec<Append> = sent
            .recipients
            .chunks(RECIPIENTS)
            .map(|part| {
                let recipients = part.iter().map(|to| Recipient {
                    account: to.account,
                    authority: authority(to.account),
                    dedup: dedup(&id, to.account),
                    messages: to.messages.clone(),
                });
                self.new_append(recipients.collect(), sent.shared.clone())
            })
            .collect();
        let storing = parts.into_iter().map(|part| self.store(part));
        let answers = futures_util::future::try_join_all(storing).await?;
        for (to, answer) in sent.recipients.iter().zip(answers.into_iter().flatten()) {
            match answer {
                AppendAnswer::Stored(_) | AppendAnswer::Repeated => {}
                AppendAnswer::Mismatch(mismatch) => {
                    refused.push(refusal(to.account, Some(mismatch)));
                }
                AppendAnswer::Unauthorised | AppendAnswer::UnknownAccount => {
                    refused.push(refusal(to.account, None));
                }
            }
        }
        Ok(MultiAccepted { refused })
    }

    fn split(&self, sent: &Bytes) -> Result<Split, ServiceError> {
        let mut split = split(sent)?;
        let size = split.shared.len().saturating_add(HEAD) as u64;
        if size > self.max_envelope_bytes {
            return Err(ServiceError::TooLarge(self.max_envelope_bytes));
        }
        if split.recipients.len() as u64 > self.max_recipients {
            return Err(ServiceError::TooManyRecipients(self.max_recipients));
        }
        if split.shared.len() < SHARED_MIN {
            for message in split.recipients.iter_mut().flat_map(|to| &mut to.messages) {
                message.content = [&message.content[..], &split.shared].concat().into();
            }
            split.shared = Bytes::new();
        }
        Ok(split)
    }
}

fn submission_id(submission: &MultiSubmission) -> Result<[u8; 16], ServiceError> {
    let id = submission.submission_id.as_ref().try_into();
    id.map_err(|_| ServiceError::Invalid("submission_id must have 16 bytes"))
}

fn access_keys(
    right: MultiRight,
    access: &[RecipientAccess],
) -> Result<HashMap<AccountId, [u8; 16]>, ServiceError> {
    if right == MultiRight::Token && !access.is_empty() {
        return Err(ServiceError::Invalid("show a device token or access keys, not both"));
    }
    let pairs = access.iter().map(|access| {
        let account = access.account.as_ref().try_into().map(AccountId).ok()?;
        Some((account, access.access_key.as_ref().try_into().ok()?))
    });
    let pairs = pairs.collect::<Option<_>>();
    pairs.ok_or(ServiceError::Invalid("account and access_key must have 16 bytes"))
}

fn sha256_of(key: &[u8; 16]) -> [u8; 32] {
    sha256(key)
}

fn refusal(account: AccountId, mismatch: Option<Mismatch>) -> RecipientRefusal {
    let list = |devices: Vec<u8>| devices.into_iter().map(u32::from).collect();
    RecipientRefusal {
        account: Bytes::copy_from_slice(&account.0),
        devices: mismatch.map(|mismatch| DeviceMismatch {
            missing: list(mismatch.missing),
            extra: list(mismatch.extra),
            stale: list(mismatch.stale),
        }),
    }
}

/// version (1) || C (32) || AT (16)
const HEAD: usize = 49;

/// A sent message, split.
struct Split {
    recipients: Vec<SplitRecipient>,
    /// Names that are no accounts of this server.
    others: Vec<AccountId>,
    /// ephemeral key (32) || ciphertext: the end of every received message.
    shared: Bytes,
}

struct SplitRecipient {
    account: AccountId,
    /// The beginning of the received message, for each device.
    messages: Vec<NewMessage>,
}

/// `0x23 || count || recipients || ephemeral key (32) || ciphertext`
fn split(sent: &Bytes) -> Result<Split, ServiceError> {
    parse(sent).ok_or(ServiceError::Invalid(
        "sent is not a sealed-sender version 2 message for many recipients",
    ))
}

fn parse(sent: &Bytes) -> Option<Split> {
    let mut rest = Rest(sent);
    let named = match rest.byte()? {
        0x23 => Names::ServiceIds,
        0x22 => Names::Uuids,
        _ => return None,
    };
    let count = rest.varint()?;
    let mut split = Split { recipients: Vec::new(), others: Vec::new(), shared: Bytes::new() };
    let mut places: HashMap<([u8; 16], u8), usize> = HashMap::new();
    let mut excluded = HashSet::new();
    for _ in 0..count {
        let kind = if named == Names::ServiceIds { rest.byte()? } else { 0 };
        let name = (*rest.take::<16>()?, kind);
        if kind > 1 || excluded.contains(&name) {
            return None;
        }
        let devices = rest.devices()?;
        if devices.is_empty() {
            if places.contains_key(&name) {
                return None;
            }
            excluded.insert(name);
            continue;
        }
        let head: Bytes = [&[0x22][..], rest.take::<48>()?].concat().into();
        if kind == 1 {
            split.others.push(AccountId(name.0));
            continue;
        }
        let place = *places.entry(name).or_insert(split.recipients.len());
        if place == split.recipients.len() {
            split
                .recipients
                .push(SplitRecipient { account: AccountId(name.0), messages: Vec::new() });
        }
        let messages = &mut split.recipients.get_mut(place)?.messages;
        // Of a name that comes again the first beginning is kept, and of a device the first entry.
        let head = messages.first().map_or(head, |first| first.content.clone());
        for (device, registration_id) in devices {
            if messages.iter().all(|message| message.device != device) {
                let content = head.clone();
                messages.push(NewMessage { device, registration_id, content });
            }
        }
    }
    split.recipients.iter_mut().for_each(|to| to.messages.sort_by_key(|message| message.device));
    split.shared = sent.slice_ref(rest.0);
    (split.shared.len() >= 32).then_some(split)
}

#[derive(PartialEq, Eq)]
enum Names {
    ServiceIds,
    Uuids,
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| *byte)
    }

    /// A minimal one: there are readers that go on at another place after a longer one.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// None in the list: the recipient is excluded.
    fn devices(&mut self) -> Option<Vec<(u8, u32)>> {
        let mut devices = Vec::new();
        loop {
            let device = self.byte()?;
            if device == 0 && devices.is_empty() {
                return Some(devices);
            }
            if device == 0 || device > 127 {
                return None;
            }
            let word = u16::from_be_bytes(*self.take()?);
            devices.push((device, u32::from(word & 0x3FFF)));
            if word & 0x8000 == 0 {
                return Some(devices);
            }
        }
    }
}
