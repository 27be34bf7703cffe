//! Which device is woken through its push service, and when: soon after something came while it was away, once more
//! after a while when it was connected and has not fetched, at most so often. Who waits is `queue.rs`, who is on the way
//! `places.rs`.

mod places;
mod queue;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use lru::LruCache;
use prost::Message;
use rand::RngExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tuckseal::service::{PushOffer, PushRegistration, push_registration};

use places::{Places, Turn};
pub(crate) use queue::Reason;
use queue::{BATCH, Pace, Plan, Planned, Queue, RETRY, Verdict};

use super::accounts::Caller;
use super::error::ServiceError;
use super::limits::Budget;
use super::now_ms;
use crate::bus::Bus;
use crate::config::Limits;
use crate::metrics;
use crate::push::{Outcome, Senders, Target, Urgency, WebTarget};
use crate::storage::{MailboxId, PushRow, Store};

/// Devices that were woken for their prekeys and are remembered.
const KEYS_TOLD: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Time between two queries.
const PAUSE: Duration = Duration::from_millis(250);
const TOKEN_MAX: usize = 1024;

/// Registration and waking.
#[derive(Clone)]
pub struct Push {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    senders: Senders,
    pace: Pace,
    /// Devices that were woken for their prekeys, and when.
    keys_told: Mutex<LruCache<MailboxId, Instant>>,
    keys_interval: Duration,
    registrations: Budget<MailboxId>,
    queue: Mutex<Queue>,
    earlier: Notify,
    places: Arc<Places>,
    sending: TaskTracker,
}

impl Push {
    pub(super) fn new(
        store: Arc<dyn Store>,
        bus: Arc<dyn Bus>,
        senders: Senders,
        limits: &Limits,
    ) -> Self {
        let pace = Pace {
            delay: Duration::from_secs(limits.push_delay_secs),
            interval: Duration::from_secs(limits.push_interval_secs),
            background: Duration::from_secs(limits.push_background_secs),
            unfetched: Duration::from_secs(limits.push_unfetched_secs),
            ttl_secs: limits.push_ttl_secs,
        };
        let inner = Inner {
            store,
            bus,
            senders,
            pace,
            keys_told: Mutex::new(LruCache::new(KEYS_TOLD)),
            keys_interval: Duration::from_secs(limits.push_keys_secs),
            registrations: Budget::new(limits.push_burst, limits.push_per_hour),
            queue: Mutex::default(),
            earlier: Notify::new(),
            places: Arc::default(),
            sending: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What a client is told.
    #[must_use]
    pub fn offer(&self) -> PushOffer {
        self.inner.senders.offer()
    }

    /// Wakes the device there from now on.
    ///
    /// # Errors
    /// [`ServiceError::Invalid`] for a target that this server cannot wake, [`ServiceError::TooMany`] or the store's.
    pub async fn register(
        &self,
        caller: &Caller,
        registration: PushRegistration,
    ) -> Result<(), ServiceError> {
        self.inner.registrations.spend(&caller.mailbox).map_err(ServiceError::TooMany)?;
        let target = target(&registration).ok_or(ServiceError::Invalid(
            "name one target: web (https address, 65 bytes of p256dh, 16 of auth), apns (hex) or fcm",
        ))?;
        if !self.inner.senders.take(&target) {
            return Err(ServiceError::Invalid(
                "this server cannot wake that target: /v1/server says what it can, and endpoints must be public",
            ));
        }
        let registration = Bytes::from(registration.encode_to_vec());
        Ok(self.inner.store.put_push(caller.mailbox, Some(registration)).await?)
    }

    /// Wakes the device nowhere from now on.
    ///
    /// # Errors
    /// The store's.
    pub async fn unregister(&self, caller: &Caller) -> Result<(), ServiceError> {
        Ok(self.inner.store.put_push(caller.mailbox, None).await?)
    }

    /// Something came for a device.
    pub(super) fn note(&self, mailbox: MailboxId, reason: Reason, urgency: Urgency) {
        let wait = match reason {
            Reason::Away => self.inner.pace.delay.mul_f64(rand::rng().random()),
            Reason::Unfetched => self.inner.pace.unfetched,
            Reason::Keys => Duration::ZERO,
        };
        let (due, reasons) = (Instant::now() + wait, reason.into());
        self.plan(mailbox, Plan { due, reasons, urgency });
    }

    /// The prekeys of a device run low: it is woken to upload others, once in a long while.
    pub(super) fn note_keys(&self, mailbox: MailboxId) {
        let now = Instant::now();
        let mut told = self.inner.keys_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&mailbox).is_some_and(|at| now.duration_since(*at) < self.inner.keys_interval) {
            return;
        }
        told.put(mailbox, now);
        drop(told);
        self.note(mailbox, Reason::Keys, Urgency::Background);
    }

    fn plan(&self, mailbox: MailboxId, plan: Plan) {
        if self.inner.queue().plan(mailbox, plan, self.inner.pace) == Planned::First {
            self.inner.earlier.notify_one();
        }
    }

    /// Forgets devices that have not been woken for long.
    pub fn tidy(&self) {
        self.inner.queue().tidy(self.inner.pace.background);
        self.inner.registrations.forget_full();
    }

    /// Why the device is to be woken; it no longer is. For the simulation, which sees each reason so.
    #[cfg(test)]
    pub(crate) fn forget(&self, mailbox: MailboxId) -> Option<Reason> {
        self.inner.queue().forget(mailbox)
    }

    /// Wakes what is due until the server is to stop.
    pub async fn run(self, stopping: CancellationToken) {
        while stopping.run_until_cancelled(self.inner.wait()).await.is_some() {
            let due = self.inner.queue().take_due(Instant::now());
            let waking = self.wake(due.clone());
            if stopping.run_until_cancelled(waking).await.is_none() {
                // None of them is on its way yet: they are woken with the others, at the end.
                due.into_iter().for_each(|(mailbox, plan)| self.plan(mailbox, plan));
            }
            stopping.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
        }
    }

    /// Wakes at once what would be woken later, as the server stops and forgets it. Devices that were connected are
    /// among them: those that came back elsewhere have fetched.
    pub async fn flush(&self, patience: Duration) {
        let all = self.inner.queue().take_all().into_iter();
        let all: Vec<_> =
            all.map(|(at, plan)| (at, Plan { reasons: plan.reasons.away(), ..plan })).collect();
        let end = Instant::now() + patience;
        let work = async {
            // What was acknowledged last does not wait for anybody.
            if let Err(error) = self.inner.store.settle().await {
                tracing::warn!(%error, "push");
            }
            for part in all.chunks(BATCH) {
                self.wake(part.to_vec()).await;
            }
            // Those that found no room in a line come again, and those that failed, if there is time.
            while self.inner.is_more_before(end).await {
                self.inner.wait().await;
                let due = self.inner.queue().take_due(Instant::now());
                self.wake(due).await;
            }
        };
        if tokio::time::timeout(patience, work).await.is_err() {
            tracing::warn!("not all devices that left something behind were woken in time");
        }
    }

    /// Devices that are here now, or have nothing to fetch, are spared. None is on its way before the store has answered.
    async fn wake(&self, due: Vec<(MailboxId, Plan)>) {
        let inner = &self.inner;
        let (here, away): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(mailbox, _)| inner.bus.has_listener(*mailbox));
        here.into_iter().for_each(|(mailbox, _)| inner.queue().spared(mailbox));
        let mut plans: HashMap<_, _> = away.into_iter().collect();
        if plans.is_empty() {
            return;
        }
        let rows = match inner.store.to_push(plans.keys().copied().collect(), now_ms()).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "push");
                let due = Instant::now() + RETRY;
                plans.into_iter().for_each(|(at, plan)| self.put_back(at, plan, due));
                return;
            }
        };
        for row in rows {
            let Some(plan) = plans.remove(&row.mailbox) else { continue };
            match plan.reasons.judge(&row, now_ms(), inner.pace.unfetched) {
                Verdict::Wake => self.begin(row, plan),
                Verdict::Patience(wait) => {
                    inner.queue().put_back(row.mailbox, None);
                    self.plan(row.mailbox, Plan { due: Instant::now() + wait, ..plan });
                }
                Verdict::Spare => inner.queue().spared(row.mailbox),
            }
        }
        plans.into_keys().for_each(|mailbox| inner.queue().spared(mailbox));
    }

    /// Goes into the line of the push service; where that has no room, back to those that wait.
    fn begin(&self, row: PushRow, plan: Plan) {
        let PushRow { mailbox, registration, .. } = row;
        let registered = PushRegistration::decode(registration.clone()).ok();
        let target = registered.as_ref().and_then(target);
        let turn = target.map(|to| self.inner.places.line_up(to.service()).map(|turn| (to, turn)));
        match turn.transpose() {
            Ok(target) => {
                let push = self.clone();
                let sending = async move { push.send((mailbox, registration), target, plan).await };
                self.inner.sending.spawn(sending);
            }
            Err(due) => self.put_back(mailbox, plan, due),
        }
    }

    fn put_back(&self, mailbox: MailboxId, plan: Plan, due: Instant) {
        self.inner.queue().put_back(mailbox, Some(due));
        self.plan(mailbox, Plan { due, ..plan });
    }

    async fn send(
        &self,
        (mailbox, registration): (MailboxId, Bytes),
        target: Option<(Target, Turn)>,
        plan: Plan,
    ) {
        let outcome = match target {
            Some((target, turn)) => self.ask(mailbox, &target, &turn, plan.urgency).await,
            None => Some(Outcome::Gone),
        };
        let Some(outcome) = outcome else {
            self.inner.queue().spared(mailbox);
            return;
        };
        match outcome {
            Outcome::Sent => metrics::PUSH_SENT.add(1),
            Outcome::Gone => {
                metrics::PUSH_GONE.add(1);
                if let Err(error) = self.inner.store.end_push(mailbox, registration).await {
                    tracing::warn!(%error, "a registration for push was not removed");
                }
            }
            Outcome::Later(wait) => {
                metrics::PUSH_FAILED.add(1);
                // The lock must not be held when the plan is made.
                let again = self.inner.queue().retry(mailbox, wait);
                if let Some(due) = again {
                    self.plan(mailbox, Plan { due, ..plan });
                    return;
                }
            }
            Outcome::Refused(status) => {
                metrics::PUSH_FAILED.add(1);
                tracing::warn!(status, "a push service refused a wake-up");
            }
        }
        self.inner.queue().done(mailbox);
    }

    /// None if the device has come while it was in the line.
    async fn ask(
        &self,
        mailbox: MailboxId,
        target: &Target,
        turn: &Turn,
        urgency: Urgency,
    ) -> Option<Outcome> {
        let _place = turn.place().await;
        if self.inner.bus.has_listener(mailbox) {
            return None;
        }
        let begun = Instant::now();
        let outcome = self.inner.senders.wake(target, urgency, self.inner.pace.ttl_secs).await;
        turn.ended(begun.elapsed(), Instant::now());
        Some(outcome)
    }
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is due before that. All that is on its way has ended if nothing is.
    async fn is_more_before(&self, end: Instant) -> bool {
        let is_more = || self.queue().first().is_some_and(|first| first < end);
        if !is_more() {
            self.sending.close();
            self.sending.wait().await;
        }
        is_more()
    }

    /// Until something is due.
    async fn wait(&self) {
        loop {
            let earlier = self.earlier.notified();
            let first = self.queue().first();
            match first {
                Some(due) => {
                    if tokio::time::timeout_at(due.into(), earlier).await.is_err() {
                        return;
                    }
                }
                None => earlier.await,
            }
        }
    }
}

fn target(registration: &PushRegistration) -> Option<Target> {
    match registration.target.as_ref()? {
        push_registration::Target::Web(web) => WebTarget::new(web).map(Target::Web),
        push_registration::Target::Apns(token) => {
            let good = (1..=TOKEN_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_hexdigit());
            good.then(|| Target::Apns(token.clone()))
        }
        push_registration::Target::Fcm(token) => {
            let good = (1..=TOKEN_MAX).contains(&token.len())
                && token.bytes().all(|byte| byte.is_ascii_graphic());
            good.then(|| Target::Fcm(token.clone()))
        }
    }
}
