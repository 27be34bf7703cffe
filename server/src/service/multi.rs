//! W§15.3: one sealed-sender version 2 message for many recipients, split into what each of them gets.

use std::collections::HashMap;

use bytes::Bytes;
use tuckseal::service::{
    MultiAccepted, MultiSubmission, RecipientAccess, RecipientRefusal, Submission,
};
use tuckseal::{SentMessage, SentRecipient, ServiceIdKind};

use super::accounts::sha256;
use super::error::ServiceError;
use super::intake::{Keeping, Outcome};
use super::relay::{Relay, Sender, dedup};
use crate::storage::{AccountId, AppendAnswer, Authority, Mismatch, NewMessage, Recipient};

/// Recipients of one transaction.
const RECIPIENTS: usize = 128;
/// A shared part of fewer bytes is stored with every envelope: looking it up would cost more.
const SHARED_MIN: usize = 1024;

/// By what right a submission for many comes.
#[derive(Clone, Copy)]
pub enum MultiRight {
    /// This device has shown its token.
    Token(Sender),
    /// The access key of each recipient, in the submission.
    AccessKeys,
}

impl Relay {
    /// Stores a submission for many recipients, for each of them on its own, and wakes those that are connected.
    /// The same submission id again stores nothing twice.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`], [`ServiceError::TooLarge`], [`ServiceError::EnvelopeSize`] before anything is stored;
    /// the store's, after which some recipients may have it: repeat with the same submission id.
    pub async fn submit_multi(
        &self,
        right: MultiRight,
        submission: MultiSubmission,
    ) -> Result<MultiAccepted, ServiceError> {
        let MultiSubmission { background, ephemeral, ttl_secs, .. } = submission;
        let of_one = Submission { background, ephemeral, ttl_secs, ..Submission::default() };
        let keeping = Keeping::of(&of_one)?;
        let id = submission_id(&submission)?;
        let sent = self.split(&submission.sent)?;
        let keys = access_keys(right, &submission.access)?;
        let authority = |account: AccountId| match right {
            MultiRight::Token(sender) => sender.authority(account),
            // Without its key a recipient is refused in the same way as with a wrong one.
            MultiRight::AccessKeys => {
                Authority::AccessHash(keys.get(&account).map_or([0; 32], sha256_of))
            }
        };
        let mut refused: Vec<RecipientRefusal> =
            sent.others.iter().map(|account| refusal(*account, None)).collect();
        let parts: Vec<Vec<Recipient>> = sent
            .recipients
            .chunks(RECIPIENTS)
            .map(|part| {
                let recipients = part.iter().map(|to| Recipient {
                    account: to.account,
                    authority: authority(to.account),
                    dedup: dedup(&id, to.account),
                    messages: to.messages.clone(),
                });
                recipients.collect()
            })
            .collect();
        let taking_in = |part| self.take_in(part, sent.shared.clone(), keeping);
        let answers = parts.into_iter().map(taking_in);
        // All to their end: one that is stored wakes its recipients, whatever became of another.
        let answers = futures_util::future::join_all(answers).await.into_iter();
        let answers: Vec<Vec<Outcome>> = answers.collect::<Result<_, _>>()?;
        for (to, answer) in sent.recipients.iter().zip(answers.into_iter().flatten()) {
            match answer {
                Outcome::Accepted => {}
                Outcome::Refused(AppendAnswer::Mismatch(mismatch)) => {
                    refused.push(refusal(to.account, Some(mismatch)));
                }
                // Who has no room now is handed in for alone, and told when there is some.
                Outcome::Refused(_) | Outcome::TooMuch(_) => {
                    refused.push(refusal(to.account, None));
                }
            }
        }
        Ok(MultiAccepted { refused })
    }

    fn split(&self, sent: &Bytes) -> Result<Split, ServiceError> {
        let mut split = split(sent.clone())?;
        self.check_size(split.received_len)?;
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
    if matches!(right, MultiRight::Token(_)) && !access.is_empty() {
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
    RecipientRefusal {
        account: Bytes::copy_from_slice(&account.0),
        devices: mismatch.map(Into::into),
    }
}

/// A sent message as its recipients get it.
struct Split {
    recipients: Vec<SplitRecipient>,
    /// Names that are no accounts of this server.
    others: Vec<AccountId>,
    /// The end of every received message, with the padding.
    shared: Bytes,
    /// Bytes of every received message.
    received_len: usize,
}

struct SplitRecipient {
    account: AccountId,
    /// The beginning of the received message, for each device.
    messages: Vec<NewMessage>,
}

fn split(sent: Bytes) -> Result<Split, ServiceError> {
    let sent = SentMessage::from_bytes(sent).map_err(|_| {
        ServiceError::Invalid("sent is not a sealed-sender version 2 message for many recipients")
    })?;
    let (accounts, others): (Vec<_>, Vec<_>) =
        sent.recipients().iter().partition(|to| to.service_id().kind() == ServiceIdKind::Aci);
    Ok(Split {
        recipients: accounts.into_iter().map(split_recipient).collect(),
        others: others.into_iter().map(|to| AccountId(*to.service_id().uuid())).collect(),
        shared: sent.shared().clone(),
        received_len: sent.received_len(),
    })
}

fn split_recipient(to: &SentRecipient) -> SplitRecipient {
    let head = Bytes::copy_from_slice(&to.head());
    let mut messages: Vec<NewMessage> = Vec::with_capacity(to.devices().len());
    for device in to.devices() {
        let (id, registration_id) = (device.device_id.get(), device.registration_id);
        // A device may stand there twice: the first entry counts.
        if messages.iter().all(|message| message.device != id) {
            let content = head.clone();
            messages.push(NewMessage { device: id, registration_id, content });
        }
    }
    messages.sort_by_key(|message| message.device);
    SplitRecipient { account: AccountId(*to.service_id().uuid()), messages }
}
