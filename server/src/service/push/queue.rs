//! Who is to be woken, and when: joined, paced, tried again. In memory, bounded.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use crate::metrics;
use crate::push::Urgency;
use crate::storage::{MailboxId, PushRow};

/// Devices that are remembered because they are to be woken or were woken not long ago.
const DEVICES: usize = 200_000;
/// Devices that are taken at once.
pub(super) const BATCH: usize = 1000;
/// After a failure: this, then four times as long each time.
pub(super) const RETRY: Duration = Duration::from_secs(3);
const RETRIES: u32 = 4;
/// A push service may ask for no more patience than this.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// Why a device is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Something came while it was away.
    Away,
    /// It was connected, here or at another node, and may have gone without what came.
    Unfetched,
    /// Its prekeys run low.
    Keys,
}

/// Several are joined; each of them has to hold by itself when the time comes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reasons {
    pub(super) away: bool,
    pub(super) unfetched: bool,
    pub(super) keys: bool,
}

/// What is to be done about a device whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Wake,
    /// It has had what waits for a short time only: again after this.
    Patience(Duration),
    Spare,
}

#[derive(Clone, Copy)]
pub(super) struct Pace {
    pub(super) delay: Duration,
    pub(super) interval: Duration,
    pub(super) background: Duration,
    pub(super) unfetched: Duration,
    pub(super) ttl_secs: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) due: Instant,
    pub(super) reasons: Reasons,
    pub(super) urgency: Urgency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planned {
    /// It is the earliest of all.
    First,
    Later,
}

impl From<Reason> for Reasons {
    fn from(reason: Reason) -> Self {
        Self {
            away: reason == Reason::Away,
            unfetched: reason == Reason::Unfetched,
            keys: reason == Reason::Keys,
        }
    }
}

impl Reasons {
    fn or(self, other: Self) -> Self {
        Self {
            away: self.away || other.away,
            unfetched: self.unfetched || other.unfetched,
            keys: self.keys || other.keys,
        }
    }

    /// It is here no more.
    pub(super) fn away(self) -> Self {
        Self { away: true, ..self }
    }

    /// A device that was connected has half of `patience` at least to fetch; one that is connected is told of its prekeys
    /// there.
    pub(super) fn judge(self, row: &PushRow, now_ms: i64, patience: Duration) -> Verdict {
        if self.keys && row.node.is_none() {
            return Verdict::Wake;
        }
        let Some(oldest_ms) = row.oldest_ms else { return Verdict::Spare };
        let waiting = u64::try_from(now_ms.saturating_sub(oldest_ms)).unwrap_or_default();
        let waiting = Duration::from_millis(waiting);
        match self {
            Self { away: true, .. } => Verdict::Wake,
            Self { unfetched: true, .. } if waiting >= patience / 2 => Verdict::Wake,
            Self { unfetched: true, .. } => Verdict::Patience(patience.saturating_sub(waiting)),
            Self { .. } => Verdict::Spare,
        }
    }
}

#[derive(Default)]
struct Device {
    plan: Option<Plan>,
    /// A wake-up is under way since then: what comes now is covered by it.
    taken: Option<Instant>,
    woken: Option<Instant>,
    /// It is not tried before, whatever comes for it: the push service failed, or asked for patience.
    not_before: Option<Instant>,
    failures: u32,
}

impl Device {
    /// It is not to be woken. Since when that is of interest; none if there is nothing to remember.
    fn past(&self) -> Option<Instant> {
        let idle = self.plan.is_none() && self.taken.is_none();
        self.woken.max(self.not_before).filter(|_| idle)
    }
}

/// Who is to be woken, by time.
#[derive(Default)]
pub(super) struct Queue {
    devices: HashMap<MailboxId, Device>,
    order: BTreeSet<(Instant, MailboxId)>,
    /// Those that are remembered because they were woken. They give way to those that are to be woken.
    past: BTreeSet<(Instant, MailboxId)>,
}

impl Queue {
    pub(super) fn first(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// Joins it with a plan that is there: the earlier time, the higher urgency. What is to be tried again keeps its time.
    pub(super) fn plan(&mut self, mailbox: MailboxId, new: Plan, pace: Pace) -> Planned {
        if !self.devices.contains_key(&mailbox) && !self.has_room() {
            metrics::PUSH_DROPPED.add(1);
            return Planned::Later;
        }
        let first = self.first();
        let device = self.devices.entry(mailbox).or_default();
        if let Some(at) = device.past() {
            self.past.remove(&(at, mailbox));
        }
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
                reasons: before.reasons.or(new.reasons),
                urgency: before.urgency.max(new.urgency),
            };
        }
        plan.due = device.not_before.map_or(plan.due, |least| plan.due.max(least));
        device.plan = Some(plan);
        self.order.insert((plan.due, mailbox));
        if first.is_none_or(|first| plan.due < first) { Planned::First } else { Planned::Later }
    }

    /// Forgets the one that was woken longest ago, if need be.
    fn has_room(&mut self) -> bool {
        if self.devices.len() >= DEVICES
            && let Some((_, oldest)) = self.past.pop_first()
        {
            self.devices.remove(&oldest);
        }
        self.devices.len() < DEVICES
    }

    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(MailboxId, Plan)> {
        let mut due = Vec::new();
        while due.len() < BATCH
            && let Some(&(at, mailbox)) = self.order.first()
            && at <= now
        {
            self.order.pop_first();
            due.extend(self.take(mailbox, now));
        }
        due
    }

    /// All of them, whatever their time.
    pub(super) fn take_all(&mut self) -> Vec<(MailboxId, Plan)> {
        let (now, order) = (Instant::now(), std::mem::take(&mut self.order));
        order.into_iter().filter_map(|(_, mailbox)| self.take(mailbox, now)).collect()
    }

    fn take(&mut self, mailbox: MailboxId, now: Instant) -> Option<(MailboxId, Plan)> {
        let device = self.devices.get_mut(&mailbox)?;
        device.taken = Some(now);
        device.plan.take().map(|plan| (mailbox, plan))
    }

    /// Why it is to be woken; it no longer is.
    #[cfg(test)]
    pub(super) fn forget(&mut self, mailbox: MailboxId) -> Option<Reason> {
        let plan = self.devices.remove(&mailbox)?.plan?;
        self.order.remove(&(plan.due, mailbox));
        let Reasons { away, unfetched, .. } = plan.reasons;
        Some(match (away, unfetched) {
            (true, _) => Reason::Away,
            (false, true) => Reason::Unfetched,
            (false, false) => Reason::Keys,
        })
    }

    pub(super) fn done(&mut self, mailbox: MailboxId) {
        let device = self.devices.entry(mailbox).or_default();
        if let Some(at) = device.past() {
            self.past.remove(&(at, mailbox));
        }
        (device.woken, device.taken, device.failures) = (Some(Instant::now()), None, 0);
        self.past.extend(device.past().map(|at| (at, mailbox)));
    }

    /// There was no need to wake it.
    pub(super) fn spared(&mut self, mailbox: MailboxId) {
        let Some(device) = self.devices.get_mut(&mailbox) else { return };
        (device.taken, device.failures) = (None, 0);
        let past = device.past();
        if device.plan.is_none() && past.is_none() {
            self.devices.remove(&mailbox);
        }
        self.past.extend(past.map(|at| (at, mailbox)));
    }

    /// When to try again; none if it was tried often enough.
    pub(super) fn retry(&mut self, mailbox: MailboxId, asked: Option<Duration>) -> Option<Instant> {
        let device = self.devices.entry(mailbox).or_default();
        device.failures += 1;
        device.taken = None;
        let wait = RETRY.saturating_mul(4_u32.saturating_pow(device.failures.min(RETRIES) - 1));
        let least = Instant::now() + wait.max(asked.unwrap_or_default().min(RETRY_MAX));
        device.not_before = Some(least);
        // What came meanwhile waits as long.
        if let Some(plan) = device.plan.as_mut().filter(|plan| plan.due < least) {
            self.order.remove(&(plan.due, mailbox));
            self.order.insert((least, mailbox));
            plan.due = least;
        }
        (device.failures <= RETRIES).then_some(least)
    }

    /// It is not woken now. Nor before that, if it says so.
    pub(super) fn put_back(&mut self, mailbox: MailboxId, not_before: Option<Instant>) {
        let device = self.devices.entry(mailbox).or_default();
        (device.taken, device.not_before) = (None, not_before.or(device.not_before));
    }

    pub(super) fn tidy(&mut self, after: Duration) {
        let now = Instant::now();
        while let Some(&(at, mailbox)) = self.past.first()
            && at + after <= now
        {
            self.past.pop_first();
            self.devices.remove(&mailbox);
        }
        self.devices.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::NodeId;

    const DEVICE: MailboxId = MailboxId(1);
    const PACE: Pace = Pace {
        delay: Duration::ZERO,
        interval: Duration::from_secs(10),
        background: Duration::from_secs(1200),
        unfetched: Duration::from_secs(60),
        ttl_secs: 1,
    };

    fn plan(due: Instant, urgency: Urgency) -> Plan {
        Plan { due, reasons: Reason::Away.into(), urgency }
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
    fn messages_in_an_outage_use_up_no_attempt_and_do_not_shorten_what_the_service_asked_for() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        queue.take_due(now);
        // While the first attempt is under way, and after it has failed.
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        let asked = Duration::from_secs(600);
        let again = queue.retry(DEVICE, Some(asked)).unwrap();
        queue.plan(DEVICE, plan(again, Urgency::Urgent), PACE);
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        assert!(again >= now + asked);
        assert_eq!((queue.first(), queue.order.len()), (Some(again), 1));
        // After the last attempt the wait holds as well.
        queue.take_due(again);
        while queue.retry(DEVICE, Some(asked)).is_some() {}
        queue.done(DEVICE);
        queue.tidy(Duration::ZERO);
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        assert!(queue.first().unwrap() >= again);
    }

    #[test]
    fn joined_reasons_hold_each_by_itself() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let due =
            |reason: Reason| Plan { due: now, reasons: reason.into(), urgency: Urgency::Urgent };
        queue.plan(DEVICE, due(Reason::Unfetched), PACE);
        queue.plan(DEVICE, due(Reason::Keys), PACE);
        let (_, plan) = queue.take_due(now).pop().unwrap();
        let row = |oldest_ms, node| PushRow {
            mailbox: DEVICE,
            registration: Bytes::new(),
            oldest_ms,
            node,
        };
        let (gone, elsewhere) = (None, Some(NodeId(2)));
        let judge = |reasons: Reasons, row: PushRow| reasons.judge(&row, 100_000, PACE.unfetched);
        assert_eq!(judge(plan.reasons, row(None, gone)), Verdict::Wake);
        assert_eq!(judge(plan.reasons, row(None, elsewhere)), Verdict::Spare);
        // It came 10 s ago, for a device whose node may be no more.
        let young = Verdict::Patience(Duration::from_secs(50));
        assert_eq!(judge(plan.reasons, row(Some(90_000), elsewhere)), young);
        assert_eq!(judge(plan.reasons, row(Some(70_000), elsewhere)), Verdict::Wake);
        let only = |reason: Reason, row| judge(reason.into(), row);
        assert_eq!(only(Reason::Unfetched, row(Some(90_000), gone)), young);
        assert_eq!(only(Reason::Away, row(Some(100_001), elsewhere)), Verdict::Wake);
        assert_eq!(only(Reason::Keys, row(Some(1), elsewhere)), Verdict::Spare);
    }

    #[test]
    fn at_the_end_all_are_taken_however_late_they_were_to_be_woken() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let late = now + 9 * RETRY_MAX;
        queue.plan(DEVICE, plan(late, Urgency::Background), PACE);
        assert_eq!(queue.take_all(), [(DEVICE, plan(late, Urgency::Background))]);
        assert!(queue.take_all().is_empty() && queue.order.is_empty());
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
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        queue.take_due(now);
        queue.done(DEVICE);
        queue.tidy(Duration::ZERO);
        assert!(queue.devices.is_empty() && queue.order.is_empty() && queue.past.is_empty());
    }

    #[test]
    fn who_was_woken_gives_way_to_who_is_to_be_woken() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for mailbox in 0..DEVICES as i64 {
            queue.plan(MailboxId(mailbox), plan(now, Urgency::Urgent), PACE);
        }
        for _ in 0..2 {
            for (mailbox, _) in queue.take_due(now) {
                queue.done(mailbox);
            }
        }
        let (woken, new) = (queue.past.len(), MailboxId(DEVICES as i64));
        assert_eq!(woken, 2 * BATCH);
        // One of them is to be woken again, and one that is new.
        queue.plan(DEVICE, plan(now, Urgency::Urgent), PACE);
        queue.plan(new, plan(now, Urgency::Urgent), PACE);
        assert_eq!((queue.past.len(), queue.devices.len()), (woken - 2, DEVICES));
        assert!(queue.devices[&new].plan.is_some() && queue.devices[&DEVICE].plan.is_some());
    }
}
