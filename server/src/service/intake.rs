//! How a submission is taken in: whether there is room for it, and what becomes of its envelopes.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tuckseal::service::Submission;

use super::error::ServiceError;
use super::relay::Relay;
use crate::metrics;
use crate::push::Urgency;
use crate::storage::{AccountId, AppendAnswer, Recipient, StoreError};

/// What becomes of the envelopes of a submission.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keeping {
    /// They wait in mailboxes, and devices that are away are woken. No life is the server's.
    Mailbox { urgency: Urgency, life_secs: Option<NonZeroU64> },
    /// They are handed to devices that are connected.
    Ephemeral,
}

impl Keeping {
    pub(super) fn of(submission: &Submission) -> Result<Self, ServiceError> {
        let life_secs = NonZeroU64::new(submission.ttl_secs);
        if submission.ephemeral {
            return match life_secs {
                None => Ok(Self::Ephemeral),
                Some(_) => Err(ServiceError::Invalid(
                    "ttl_secs has no meaning with ephemeral: leave one of them out",
                )),
            };
        }
        let urgency = if submission.background { Urgency::Background } else { Urgency::Urgent };
        Ok(Self::Mailbox { urgency, life_secs })
    }
}

/// What became of a submission for one recipient.
pub(super) enum Outcome {
    /// Stored, now or before, or handed over.
    Accepted,
    /// Nothing was.
    Refused(AppendAnswer),
    /// Too much has come for the account; again after this time.
    TooMuch(Duration),
}

impl From<AppendAnswer> for Outcome {
    fn from(answer: AppendAnswer) -> Self {
        match answer {
            AppendAnswer::Stored(_) | AppendAnswer::Repeated => Self::Accepted,
            refusal => Self::Refused(refusal),
        }
    }
}

impl Relay {
    /// Whether submissions are taken in now. Ask before their bodies are read.
    ///
    /// # Errors
    /// The store is behind.
    pub fn has_room(&self) -> Result<(), ServiceError> {
        if self.pressure.is_behind() {
            metrics::SHED.add(1);
            return Err(ServiceError::Store(StoreError::Busy));
        }
        Ok(())
    }

    /// Stores or hands over. Answers in the order of the recipients.
    pub(super) async fn take_in(
        &self,
        recipients: Vec<Recipient>,
        shared: Bytes,
        keeping: Keeping,
    ) -> Result<Vec<Outcome>, ServiceError> {
        let now = Instant::now();
        let over = |to: &Recipient| self.inbound.check(to.account, now).err();
        if let Some(wait) = recipients.iter().find_map(over) {
            return self.take_in_those_with_room(recipients, shared, keeping, wait).await;
        }
        self.take_in_all(recipients, shared, keeping).await
    }

    /// For some too much has come. That is nobody's business but of those who may write to them.
    async fn take_in_those_with_room(
        &self,
        recipients: Vec<Recipient>,
        shared: Bytes,
        keeping: Keeping,
        wait: Duration,
    ) -> Result<Vec<Outcome>, ServiceError> {
        let now = Instant::now();
        let full: Vec<bool> =
            recipients.iter().map(|to| self.inbound.check(to.account, now).is_err()).collect();
        let (over, open): (Vec<_>, Vec<_>) =
            recipients.into_iter().zip(&full).partition(|(_, full)| **full);
        let of = |some: Vec<(Recipient, &bool)>| some.into_iter().map(|(to, _)| to).collect();
        let mut refused = self.store.locate(of(over)).await?.into_iter();
        let mut others = self.take_in_all(of(open), shared, keeping).await?.into_iter();
        let outcomes = full.iter().filter_map(|full| match full {
            false => others.next(),
            true => refused.next().map(|located| match located {
                Ok(_) => {
                    metrics::SHED.add(1);
                    Outcome::TooMuch(wait)
                }
                Err(refusal) => Outcome::Refused(refusal),
            }),
        });
        Ok(outcomes.collect())
    }

    async fn take_in_all(
        &self,
        recipients: Vec<Recipient>,
        shared: Bytes,
        keeping: Keeping,
    ) -> Result<Vec<Outcome>, ServiceError> {
        if recipients.is_empty() {
            return Ok(Vec::new());
        }
        let sizes: Vec<(AccountId, usize)> =
            recipients.iter().map(|to| (to.account, size(to, &shared))).collect();
        let outcomes: Vec<Outcome> = match keeping {
            Keeping::Mailbox { urgency, life_secs } => {
                let append = self.new_append(recipients, shared, life_secs);
                self.store(append, urgency).await?.into_iter().map(Into::into).collect()
            }
            Keeping::Ephemeral => self.hand_over(recipients, &shared).await?,
        };
        let now = Instant::now();
        for ((account, bytes), outcome) in sizes.into_iter().zip(&outcomes) {
            if matches!(outcome, Outcome::Accepted) {
                self.inbound.add(account, bytes, now);
            }
        }
        Ok(outcomes)
    }
}

/// Bytes of all envelopes of a recipient.
fn size(to: &Recipient, shared: &Bytes) -> usize {
    let sizes = to.messages.iter().map(|message| message.content.len() + shared.len());
    sizes.fold(0, usize::saturating_add)
}
