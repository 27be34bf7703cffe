//! Mailboxes: submissions in, envelopes out. Never who sent them.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tuckseal::ENVELOPE_SIZES;
use tuckseal::service::{Envelope, Submission};

use super::accounts::{Caller, sha256};
use super::claims::Claims;
use super::delivery::{Delivery, Window};
use super::envelope_id::EnvelopeIds;
use super::error::ServiceError;
use super::inbound::Inbound;
use super::intake::{Keeping, Outcome};
use super::loops::Loops;
use super::pressure::Pressure;
use super::push::{Push, Reason};
use super::waking::{Envelopes, count, reason, stored, wake, wake_elsewhere};
use super::{millis, now_ms};
use crate::bus::{Bus, Ended, Notice, Subscription, Wake};
use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::metrics;
use crate::push::Urgency;
use crate::storage::{
    AccountId, Append, AppendAnswer, Authority, Backlog, Life, Location, MailboxId, MailboxState,
    NewMessage, NodeId, Quota, ReadLimit, Recipient, Store, StoredEnvelope,
};

/// Mailboxes that one query of a sweep asks for.
const SWEEP: usize = 1000;

/// A device that hands something in and has shown its token.
#[derive(Clone, Copy)]
pub struct Sender {
    /// Its account.
    pub account: AccountId,
    /// 1..127.
    pub device: u8,
}

impl From<&Caller> for Sender {
    fn from(caller: &Caller) -> Self {
        Self { account: caller.account, device: caller.device }
    }
}

impl Sender {
    /// What its token is worth at this account.
    pub(super) fn authority(self, to: AccountId) -> Authority {
        if self.account == to { Authority::Own(self.device) } else { Authority::Token }
    }
}

/// By what right a submission comes.
#[derive(Clone, Copy)]
pub enum Right {
    /// This device has shown its token.
    Token(Sender),
    /// This access key, not checked yet.
    AccessKey([u8; 16]),
}

/// The relay.
pub struct Relay {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) node: NodeId,
    push: Push,
    claims: Claims,
    ids: EnvelopeIds,
    max_envelope_bytes: u64,
    pub(super) max_recipients: u64,
    envelope_ttl_ms: i64,
    submission_ttl_ms: i64,
    pub(super) ephemeral_ms: i64,
    quota: Quota,
    window: Window,
    loops: Loops,
    pub(super) pressure: Pressure,
    pub(super) inbound: Inbound,
}

impl Relay {
    pub(super) fn new(
        store: Arc<dyn Store>,
        (bus, node): (Arc<dyn Bus>, NodeId),
        push: Push,
        identity: &ServerIdentity,
        limits: &Limits,
    ) -> Self {
        let signed = |limit: u64| i64::try_from(limit).unwrap_or(i64::MAX);
        let size = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
        Self {
            store,
            bus,
            node,
            push,
            claims: Claims::default(),
            ids: EnvelopeIds::new(&identity.envelope_key()),
            max_envelope_bytes: limits.max_envelope_bytes,
            max_recipients: limits.max_recipients,
            envelope_ttl_ms: millis(limits.envelope_ttl_secs),
            submission_ttl_ms: millis(limits.submission_ttl_secs),
            ephemeral_ms: millis(limits.ephemeral_secs),
            quota: Quota {
                messages: signed(limits.mailbox_messages),
                bytes: signed(limits.mailbox_bytes),
            },
            window: Window {
                messages: size(limits.window_messages),
                bytes: size(limits.window_bytes),
            },
            loops: Loops::new(limits.delivery_loop_times),
            pressure: Pressure::new(limits.store_wait_ms),
            inbound: Inbound::new(limits.inbound_burst_kib, limits.inbound_kib_per_hour),
        }
    }

    /// Stores a submission for all devices of its recipient and wakes those that are connected. The answer comes
    /// when it is durable; the same submission id again stores nothing and wakes again. What a device hands in for its own account is for the
    /// others of it.
    ///
    /// Drive it to its end: dropped between the commit and the wake-up, it leaves the wake-up to the sweep, and a push to whoever
    /// repeats it.
    ///
    /// # Errors
    /// [`ServiceError::Devices`], [`ServiceError::Unauthorised`], [`ServiceError::NotFound`],
    /// [`ServiceError::Invalid`], [`ServiceError::TooLarge`], [`ServiceError::EnvelopeSize`] or the store's; nothing
    /// was stored.
    pub async fn submit(
        &self,
        to: AccountId,
        right: Right,
        submission: Submission,
    ) -> Result<(), ServiceError> {
        let keeping = Keeping::of(&submission)?;
        let recipient = self.checked(to, right, submission)?;
        match self.take_in(vec![recipient], Bytes::new(), keeping).await?.pop() {
            Some(Outcome::Accepted) => Ok(()),
            Some(Outcome::TooMuch(wait)) => Err(ServiceError::TooMany(wait)),
            Some(Outcome::Refused(AppendAnswer::Mismatch(mismatch))) => {
                Err(ServiceError::Devices(mismatch))
            }
            Some(Outcome::Refused(AppendAnswer::Unauthorised)) => Err(ServiceError::Unauthorised),
            Some(Outcome::Refused(_)) | None => Err(ServiceError::NotFound("account")),
        }
    }

    /// Stores and wakes.
    pub(super) async fn store(
        &self,
        append: Append,
        urgency: Urgency,
    ) -> Result<Vec<AppendAnswer>, ServiceError> {
        let (envelopes, received_ms) = (Envelopes::from(&append), append.now_ms);
        let answers = {
            let _waiting = self.pressure.enter();
            self.store.append(append).await?
        };
        count(&answers);
        let mut repeated = Vec::new();
        for (answer, to) in answers.iter().zip(envelopes.recipients) {
            match answer {
                AppendAnswer::Stored(placed) => {
                    let away = wake(&*self.bus, placed, to, (&envelopes.shared, received_ms));
                    for placed in away {
                        self.push.note(placed.mailbox, reason(placed.node, self.node), urgency);
                    }
                }
                AppendAnswer::Repeated => repeated.push(to),
                _ => {}
            }
        }
        wake_elsewhere(&*self.bus, self.node, stored(&answers));
        self.wake_again(repeated, urgency).await;
        Ok(answers)
    }

    /// Whoever repeats a submission was not answered: the node that stored it may have ended before it woke anybody.
    async fn wake_again(&self, repeated: Vec<Recipient>, urgency: Urgency) {
        if repeated.is_empty() {
            return;
        }
        let located = match self.store.locate(repeated).await {
            Ok(located) => located,
            Err(error) => {
                tracing::debug!(%error, "nobody is woken for what was there already");
                return;
            }
        };
        let locations: Vec<Location> = located.into_iter().flatten().flatten().collect();
        for Location { mailbox, node } in &locations {
            if !self.bus.wake(*mailbox, Wake::Look) {
                self.push.note(*mailbox, reason(*node, self.node), urgency);
            }
        }
        let places = locations.into_iter().map(|location| (location.mailbox, location.node));
        wake_elsewhere(&*self.bus, self.node, places);
    }

    pub(super) fn new_append(
        &self,
        recipients: Vec<Recipient>,
        shared: Bytes,
        life_secs: Option<NonZeroU64>,
    ) -> Append {
        let now_ms = now_ms();
        let own = life_secs.map(|secs| millis(secs.get()));
        let own = own.filter(|own| *own < self.envelope_ttl_ms);
        Append {
            recipients,
            shared,
            now_ms,
            expires_ms: now_ms.saturating_add(own.unwrap_or(self.envelope_ttl_ms)),
            life: own.map_or(Life::Full, |_| Life::Short),
            quota: self.quota,
        }
    }

    /// Takes the place of the device's stream. Read the mailbox after this, so that nothing falls between.
    #[must_use]
    pub fn subscribe(&self, mailbox: MailboxId) -> Subscription {
        self.bus.subscribe(mailbox)
    }

    /// The mailbox is this node's from now on, for the stream with this place; the node that had it before is told. None if a
    /// later stream has taken the place.
    ///
    /// # Errors
    /// [`ServiceError::NotFound`] if its device is gone, or the store's.
    pub async fn claim(
        &self,
        mailbox: MailboxId,
        place: &Subscription,
    ) -> Result<Option<i64>, ServiceError> {
        let _turn = self.claims.turn(mailbox).await;
        // The later stream claims after this, or has claimed.
        match place.ended() {
            Some(Ended::Displaced) => return Ok(None),
            Some(Ended::Removed) => return Err(ServiceError::NotFound("device")),
            None => {}
        }
        let claim = self.store.claim(mailbox, self.node).await?;
        let claim = claim.ok_or(ServiceError::NotFound("device"))?;
        place.claimed(claim.epoch);
        if let Some(before) = claim.displaced {
            self.bus.elsewhere(Some(before), Notice::Displaced(mailbox, claim.epoch));
        }
        Ok(Some(claim.epoch))
    }

    /// Gives the mailbox up, if no later connection has it.
    pub async fn release(&self, mailbox: MailboxId, epoch: i64) {
        if let Err(error) = self.store.release(mailbox, epoch).await {
            tracing::debug!(%error, "a place was not given up");
        }
        // It may have gone without all that it had.
        self.push.note(mailbox, Reason::Unfetched, Urgency::Urgent);
    }

    /// Compares all connected mailboxes with the store: finds wake-ups that were lost, and connections that were
    /// displaced or whose device was removed without this node being told.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self) -> Result<(), ServiceError> {
        for part in self.bus.listening().chunks(SWEEP) {
            let mailboxes = part.iter().map(|listening| listening.mailbox).collect();
            let states = self.store.states(mailboxes).await?;
            let states: BTreeMap<MailboxId, MailboxState> =
                states.into_iter().map(|state| (state.mailbox, state)).collect();
            for listening in part {
                let Some(state) = states.get(&listening.mailbox) else {
                    self.bus.remove(listening.mailbox);
                    continue;
                };
                if listening.epoch < state.epoch {
                    self.bus.displace(listening.mailbox, state.epoch);
                } else if listening.seen < state.end {
                    metrics::SWEPT.add(1);
                    self.bus.wake(listening.mailbox, Wake::Look);
                }
            }
        }
        Ok(())
    }

    /// Waits until earlier acknowledgements have been carried out, so that they are not delivered again.
    ///
    /// # Errors
    /// The store's.
    pub async fn settle(&self) -> Result<(), ServiceError> {
        Ok(self.store.settle().await?)
    }

    /// A part of the mailbox.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(
        &self,
        mailbox: MailboxId,
        cursor: i64,
        limit: ReadLimit,
    ) -> Result<Backlog, ServiceError> {
        Ok(self.store.read_after(mailbox, cursor, limit, now_ms()).await?)
    }

    /// What a new stream of the device gets.
    #[must_use]
    pub fn delivery(&self, mailbox: MailboxId) -> Delivery {
        let delivery = Delivery::new(self.window);
        if self.loops.is_looping(mailbox) { delivery.one_at_first() } else { delivery }
    }

    /// The stream has ended.
    pub fn delivered(&self, mailbox: MailboxId, delivery: &Delivery) {
        self.loops.ended(mailbox, delivery.first_unacknowledged());
    }

    /// An envelope as a device gets it.
    #[must_use]
    pub fn envelope(&self, mailbox: MailboxId, stored: StoredEnvelope) -> Envelope {
        Envelope {
            id: Bytes::copy_from_slice(&self.ids.id(mailbox, stored.seq)),
            server_timestamp_ms: stored.received_ms.unsigned_abs(),
            content: stored.whole(),
        }
    }

    /// What a device acknowledges on its stream is deleted soon. Ids that are not of its mailbox are ignored, and so are those
    /// that it has named before.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] if an id has not 16 bytes; nothing is deleted.
    pub fn acknowledge(
        &self,
        mailbox: MailboxId,
        ids: &[Bytes],
        delivery: &mut Delivery,
    ) -> Result<(), ServiceError> {
        let ids = ids.iter().map(|id| <[u8; 16]>::try_from(&id[..]));
        let ids = ids.collect::<Result<Vec<_>, _>>();
        let ids = ids.map_err(|_| ServiceError::Invalid("an envelope id must have 16 bytes"))?;
        let seqs = ids.into_iter().filter_map(|id| self.ids.seq(mailbox, id));
        let seqs: Vec<i64> = seqs.filter(|seq| delivery.acknowledged(*seq)).collect();
        metrics::ACKNOWLEDGED.add(seqs.len() as u64);
        if !seqs.is_empty() {
            self.store.delete(mailbox, seqs);
        }
        Ok(())
    }

    /// The device knows that so many envelopes were dropped.
    ///
    /// # Errors
    /// The store's.
    pub async fn told_dropped(&self, mailbox: MailboxId, count: u64) -> Result<(), ServiceError> {
        Ok(self.store.told_dropped(mailbox, count).await?)
    }

    /// Drops what has expired, in slices, so that other writes go between.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge(&self) -> Result<(), ServiceError> {
        let now = now_ms();
        while self.store.purge(now, now.saturating_sub(self.submission_ttl_ms)).await? > 0 {}
        Ok(())
    }

    /// Whether envelopes of so many bytes are taken: those of a size class that is not above the limit.
    pub(super) fn check_size(&self, bytes: usize) -> Result<(), ServiceError> {
        if bytes as u64 > self.max_envelope_bytes {
            return Err(ServiceError::TooLarge(self.max_envelope_bytes));
        }
        if ENVELOPE_SIZES.contains(&bytes) { Ok(()) } else { Err(ServiceError::EnvelopeSize) }
    }

    fn checked(
        &self,
        account: AccountId,
        right: Right,
        submission: Submission,
    ) -> Result<Recipient, ServiceError> {
        let id: [u8; 16] = submission
            .submission_id
            .as_ref()
            .try_into()
            .map_err(|_| ServiceError::Invalid("submission_id must have 16 bytes"))?;
        let messages = submission.messages.into_iter().map(|message| {
            self.check_size(message.content.len())?;
            let device = u8::try_from(message.device_id).ok().filter(|id| (1..=127).contains(id));
            Ok::<_, ServiceError>(NewMessage {
                device: device.ok_or(ServiceError::Invalid("device_id must be from 1 to 127"))?,
                registration_id: message.registration_id,
                content: message.content,
            })
        });
        let mut messages = messages.collect::<Result<Vec<_>, _>>()?;
        let authority = match right {
            Right::Token(sender) => sender.authority(account),
            Right::AccessKey(key) => Authority::AccessHash(sha256(&key)),
        };
        // A device may be the only one of its account; if it is not, it is told of the others.
        if messages.is_empty() && !matches!(authority, Authority::Own(_)) {
            return Err(ServiceError::Invalid("messages must be there, one for each device"));
        }
        messages.sort_by_key(|message| message.device);
        if messages
            .iter()
            .zip(messages.iter().skip(1))
            .any(|(message, next)| message.device == next.device)
        {
            return Err(ServiceError::Invalid("two messages are for the same device"));
        }
        Ok(Recipient { account, authority, dedup: dedup(&id, account), messages })
    }
}

/// 16 bytes of SHA-256(submission id || recipient): says nothing of the sender.
pub(super) fn dedup(id: &[u8; 16], account: AccountId) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::new().chain_update(id).chain_update(account.0).finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}
