//! Which device is woken through its push service, and when: soon after something came while it was away, once more
//! after a while when it was connected and has not fetched, at most so often. What waits here is in memory alone.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rand::RngExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tuckseal::service::{PushOffer, PushRegistration, push_registration};

use super::accounts::Caller;
use super::error::ServiceError;
use super::limits::Budget;
use super::now_ms;
use crate::bus::Bus;
use crate::config::Limits;
use crate::metrics;
use crate::push::{Outcome, Senders, Target, Urgency, WebTarget};
use crate::storage::{MailboxId, PushRow, Store};

/// Devices that are remembered because they are to be woken or were woken not long ago.
const DEVICES: usize = 200_000;
/// Devices of one query.
const BATCH: usize = 1000;
/// Time between two queries.
const PAUSE: Duration = Duration::from_millis(250);
/// Wake-ups on their way at the same time.
const SENDING: usize = 256;
/// After a failure: this, then four times as long each time.
const RETRY: Duration = Duration::from_secs(3);
const RETRIES: u32 = 4;
/// A push service may ask for no more patience than this.
const RETRY_MAX: Duration = Duration::from_secs(3600);
const TOKEN_MAX: usize = 1024;

/// Why a device is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// Something came while it was away.
    Away,
    /// It was connected, here or at another node, and may have gone without what came.
    Unfetched,
}

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
    registrations: Budget<MailboxId>,
    queue: Mutex<Queue>,
    earlier: Notify,
    sending: Arc<Semaphore>,
}

#[derive(Clone, Copy)]
struct Pace {
    delay: Duration,
    interval: Duration,
    background: Duration,
    unfetched: Duration,
    ttl_secs: u64,
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
            registrations: Budget::new(limits.push_burst, limits.push_per_hour),
            queue: Mutex::default(),
            earlier: Notify::new(),
            sending: Arc::new(Semaphore::new(SENDING)),
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
        };
        self.plan(mailbox, Plan { due: Instant::now() + wait, reason, urgency });
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

    /// Wakes what is due until the server is to stop.
    pub async fn run(self, stopping: CancellationToken) {
        let work = async {
            loop {
                self.inner.wait().await;
                let due = self.inner.queue().take_due(Instant::now());
                self.wake(due).await;
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = stopping.cancelled() => {}
            () = work => {}
        }
    }

    /// Wakes at once what would be woken later, as the server stops and forgets it. Devices that were connected are
    /// among them: those that came back elsewhere have fetched.
    pub async fn flush(&self, patience: Duration) {
        let mut all = Vec::new();
        loop {
            let due = self.inner.queue().take_due(Instant::now() + RETRY_MAX);
            if due.is_empty() {
                break;
            }
            all.extend(
                due.into_iter().map(|(at, plan)| (at, Plan { reason: Reason::Away, ..plan })),
            );
        }
        let work = async {
            // What was acknowledged last does not wait for anybody.
            if let Err(error) = self.inner.store.settle().await {
                tracing::warn!(%error, "push");
            }
            for part in all.chunks(BATCH) {
                self.wake(part.to_vec()).await;
            }
            // Those under way hold a place each.
            let _ = self.inner.sending.acquire_many(SENDING as u32).await;
        };
        if tokio::time::timeout(patience, work).await.is_err() {
            tracing::warn!("not all devices that left something behind were woken in time");
        }
    }

    /// Devices that are here now, or have nothing to fetch, are spared.
    async fn wake(&self, due: Vec<(MailboxId, Plan)>) {
        let inner = &self.inner;
        let (here, away): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|(mailbox, _)| inner.bus.has_listener(*mailbox));
        here.into_iter().for_each(|(mailbox, _)| inner.queue().spared(mailbox));
        let mut plans: HashMap<_, _> = away.into_iter().collect();
        if plans.is_empty() {
            return;
        }
        let rows = match inner.store.to_push(plans.keys().copied().collect()).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(%error, "push");
                let due = Instant::now() + RETRY;
                plans.into_iter().for_each(|(at, plan)| self.plan(at, Plan { due, ..plan }));
                return;
            }
        };
        for row in rows {
            if let Some(plan) = plans.remove(&row.mailbox)
                && self.is_due(&row, plan)
            {
                self.begin(row, plan).await;
            } else {
                inner.queue().spared(row.mailbox);
            }
        }
        plans.into_keys().for_each(|mailbox| inner.queue().spared(mailbox));
    }

    /// A device that was connected had its time to fetch.
    fn is_due(&self, row: &PushRow, plan: Plan) -> bool {
        let waiting = now_ms().saturating_sub(row.oldest_ms);
        let patience = self.inner.pace.unfetched.as_millis() / 2;
        plan.reason == Reason::Away || i64::try_from(patience).is_ok_and(|least| waiting >= least)
    }

    async fn begin(&self, row: PushRow, plan: Plan) {
        // The semaphore is never closed.
        let place = Arc::clone(&self.inner.sending).acquire_owned().await.ok();
        let push = self.clone();
        tokio::spawn(async move {
            let _place = place;
            push.send(row, plan).await;
        });
    }

    async fn send(&self, row: PushRow, plan: Plan) {
        let PushRow { mailbox, registration, .. } = row;
        let registered = PushRegistration::decode(registration.clone()).ok();
        let outcome = match registered.as_ref().and_then(target) {
            Some(target) => {
                let (senders, ttl_secs) = (&self.inner.senders, self.inner.pace.ttl_secs);
                senders.wake(&target, plan.urgency, ttl_secs).await
            }
            None => Outcome::Gone,
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
}

impl Inner {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    due: Instant,
    reason: Reason,
    urgency: Urgency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Planned {
    /// It is the earliest of all.
    First,
    Later,
}

#[derive(Default)]
struct Device {
    plan: Option<Plan>,
    /// A wake-up is under way since then: what comes now is covered by it.
    taken: Option<Instant>,
    woken: Option<Instant>,
    failures: u32,
}

/// Who is to be woken, by time.
#[derive(Default)]
struct Queue {
    devices: HashMap<MailboxId, Device>,
    order: BTreeSet<(Instant, MailboxId)>,
}

impl Queue {
    fn first(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Joins it with a plan that is there: the earlier time, the higher urgency.
    fn plan(&mut self, mailbox: MailboxId, new: Plan, pace: Pace) -> Planned {
        if self.devices.len() >= DEVICES && !self.devices.contains_key(&mailbox) {
            metrics::PUSH_FAILED.add(1);
            return Planned::Later;
        }
        let first = self.first();
        let device = self.devices.entry(mailbox).or_default();
        let interval = match new.urgency {
            Urgency::Urgent => pace.interval,
            Urgency::Background => pace.background,
        };
        let due =
            device.taken.or(device.woken).map_or(new.due, |woken| new.due.max(woken + interval));
        let mut plan = Plan { due, ..new };
        if let Some(before) = device.plan {
            self.order.remove(&(before.due, mailbox));
            plan = Plan {
                due: before.due.min(due),
                reason: before.reason.min(new.reason),
                urgency: before.urgency.max(new.urgency),
            };
        }
        device.plan = Some(plan);
        self.order.insert((plan.due, mailbox));
        if first.is_none_or(|first| plan.due < first) { Planned::First } else { Planned::Later }
    }

    fn take_due(&mut self, now: Instant) -> Vec<(MailboxId, Plan)> {
        let mut due = Vec::new();
        while due.len() < BATCH
            && let Some(&(at, mailbox)) = self.order.first()
            && at <= now
        {
            self.order.pop_first();
            let Some(device) = self.devices.get_mut(&mailbox) else { continue };
            due.extend(device.plan.take().map(|plan| (mailbox, plan)));
            device.taken = Some(now);
        }
        due
    }

    fn done(&mut self, mailbox: MailboxId) {
        let device = self.devices.entry(mailbox).or_default();
        (device.woken, device.taken, device.failures) = (Some(Instant::now()), None, 0);
    }

    /// There was no need to wake it.
    fn spared(&mut self, mailbox: MailboxId) {
        let Some(device) = self.devices.get_mut(&mailbox) else { return };
        (device.taken, device.failures) = (None, 0);
        if device.plan.is_none() && device.woken.is_none() {
            self.devices.remove(&mailbox);
        }
    }

    /// When to try again; none if it was tried often enough.
    fn retry(&mut self, mailbox: MailboxId, asked: Option<Duration>) -> Option<Instant> {
        let device = self.devices.entry(mailbox).or_default();
        device.failures += 1;
        device.taken = None;
        let wait = RETRY.saturating_mul(4_u32.saturating_pow(device.failures.min(RETRIES) - 1));
        let wait = wait.max(asked.unwrap_or_default().min(RETRY_MAX));
        (device.failures <= RETRIES).then(|| Instant::now() + wait)
    }

    fn tidy(&mut self, after: Duration) {
        self.devices.retain(|_, device| {
            device.plan.is_some()
                || device.taken.is_some()
                || device.woken.is_some_and(|woken| woken.elapsed() < after)
        });
        self.devices.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: MailboxId = MailboxId(1);
    const PACE: Pace = Pace {
        delay: Duration::ZERO,
        interval: Duration::from_secs(10),
        background: Duration::from_secs(1200),
        unfetched: Duration::from_secs(60),
        ttl_secs: 1,
    };

    fn plan(due: Instant, urgency: Urgency) -> Plan {
        Plan { due, reason: Reason::Away, urgency }
    }

    #[test]
    fn many_messages_are_one_wake_up_at_the_earliest_time_and_the_highest_urgency() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        assert_eq!(queue.plan(DEVICE, plan(late, Urgency::Urgent), PACE), Planned::First);
        queue.plan(DEVICE, plan(soon, Urgency::Background), PACE);
        queue.plan(DEVICE, plan(late, Urgency::Background), PACE);
        assert!(queue.take_due(now).is_empty());
        assert_eq!(queue.take_due(soon), [(DEVICE, plan(soon, Urgency::Urgent))]);
        assert!(queue.take_due(late).is_empty());
        queue.spared(DEVICE);
        assert!(queue.devices.is_empty());
    }

    #[test]
    fn device_is_woken_at_most_once_in_the_interval_of_the_urgency() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.done(DEVICE);
        queue.plan(DEVICE, plan(now, Urgency::Background), PACE);
        assert!(queue.first().unwrap() >= now + PACE.background);
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        let first = queue.first().unwrap();
        assert!(first >= now + PACE.interval && first < now + PACE.background);
        assert_eq!(queue.order.len(), 1);
    }

    #[test]
    fn failures_are_tried_again_ever_later_and_not_for_ever() {
        let mut queue = Queue::default();
        let waits: Vec<_> = (0..6).map_while(|_| queue.retry(DEVICE, None)).collect();
        assert_eq!(waits.len(), 4);
        assert!(waits.is_sorted());
        let asked = queue.devices.remove(&DEVICE).map(|_| queue.retry(DEVICE, Some(RETRY_MAX * 9)));
        let longest = Instant::now() + RETRY_MAX;
        assert!(asked.flatten().is_some_and(|at| at <= longest));
    }

    #[test]
    fn memory_is_bounded_and_devices_are_forgotten() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for mailbox in 0..=DEVICES as i64 {
            queue.plan(MailboxId(mailbox), plan(now, Urgency::Urgent), PACE);
        }
        assert_eq!(queue.devices.len(), DEVICES);
        loop {
            let due = queue.take_due(now);
            due.iter().for_each(|(mailbox, _)| queue.spared(*mailbox));
            if due.is_empty() {
                break;
            }
        }
        queue.done(DEVICE);
        queue.tidy(Duration::ZERO);
        assert!(queue.devices.is_empty() && queue.order.is_empty());
    }
}
