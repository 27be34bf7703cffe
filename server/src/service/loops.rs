//! Devices that get the same envelope again and again and never acknowledge it: they crash on it, perhaps. Each time they would be
//! sent a whole window in vain; instead they get that one alone until it is acknowledged. In memory, bounded, by node.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;

use crate::metrics;
use crate::storage::MailboxId;

/// Mailboxes that are remembered, those of the last streams that ended so.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// How often in a row a stream ended with the same first envelope not acknowledged.
pub(super) struct Loops {
    times: u64,
    known: Mutex<LruCache<MailboxId, (i64, u64)>>,
}

impl Loops {
    pub(super) fn new(times: u64) -> Self {
        Self { times, known: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// A stream has ended, with this as the first place that was sent and not acknowledged, if there was one.
    pub(super) fn ended(&self, mailbox: MailboxId, head: Option<i64>) {
        let mut known = self.lock();
        let Some(head) = head else {
            known.pop(&mailbox);
            return;
        };
        let times = match known.get(&mailbox) {
            Some((before, times)) if *before == head => times.saturating_add(1),
            _ => 1,
        };
        known.put(mailbox, (head, times));
        if times == self.times {
            metrics::LOOPS.add(1);
            tracing::warn!("a device gets an envelope again and again and does not acknowledge it");
        }
    }

    /// Whether the device is to get one envelope at first.
    pub(super) fn is_looping(&self, mailbox: MailboxId) -> bool {
        self.lock().peek(&mailbox).is_some_and(|(_, times)| *times >= self.times)
    }

    /// The map is whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, LruCache<MailboxId, (i64, u64)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAILBOX: MailboxId = MailboxId(1);

    #[test]
    fn only_the_same_envelope_in_a_row_is_a_loop() {
        let loops = Loops::new(3);
        let ended = |heads: &[Option<i64>]| {
            heads.iter().for_each(|head| loops.ended(MAILBOX, *head));
            loops.is_looping(MAILBOX)
        };
        assert!(!ended(&[Some(5), Some(5)]));
        assert!(ended(&[Some(5)]) && ended(&[Some(5)]));
        assert!(!ended(&[Some(6)]));
        assert!(!ended(&[Some(6), None, Some(6), Some(6)]));
        assert!(ended(&[Some(6)]) && !loops.is_looping(MailboxId(2)));
    }

    #[test]
    fn memory_is_bounded() {
        let loops = Loops::new(1);
        for mailbox in 0..2 * REMEMBERED.get() as i64 {
            loops.ended(MailboxId(mailbox), Some(1));
        }
        assert_eq!(loops.lock().len(), REMEMBERED.get());
    }
}
