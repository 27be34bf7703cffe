//! The bus of a single node: a table of listeners in memory.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::watch::Watches;
use super::{Bus, Ended, Inbox, Listening, Notice, Subscription, Wake, Watch};
use crate::metrics;
use crate::storage::{MailboxId, NodeId};

/// Listeners of this process.
#[derive(Clone, Default)]
pub struct LocalBus {
    listeners: Arc<Mutex<HashMap<MailboxId, Arc<Inbox>>>>,
    watches: Watches,
}

impl LocalBus {
    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Arc<Inbox>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what another node tells.
    pub(super) fn heed(&self, notice: Notice) {
        match notice {
            Notice::Look(mailboxes) => {
                for mailbox in mailboxes {
                    self.wake(mailbox, Wake::Look);
                }
            }
            Notice::Keys(mailbox) => {
                self.wake(mailbox, Wake::Keys);
            }
            Notice::Displaced(mailbox, before) => self.displace(mailbox, before),
            Notice::Removed(mailbox) => self.remove(mailbox),
            Notice::Linked(account) => self.linked(account),
            Notice::Passing(mailbox, passing) => {
                if !self.wake(mailbox, Wake::Passing(passing)) {
                    metrics::EPHEMERAL_LOST.add(1);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn inbox(&self, mailbox: MailboxId) -> Option<Arc<Inbox>> {
        self.lock().get(&mailbox).cloned()
    }

    fn leave(&self, mailbox: MailboxId, inbox: &Arc<Inbox>) {
        let mut listeners = self.lock();
        if listeners.get(&mailbox).is_some_and(|current| Arc::ptr_eq(current, inbox)) {
            listeners.remove(&mailbox);
        }
    }
}

impl Bus for LocalBus {
    fn subscribe(&self, mailbox: MailboxId) -> Subscription {
        let inbox = Arc::<Inbox>::default();
        if let Some(before) = self.lock().insert(mailbox, Arc::clone(&inbox)) {
            before.put(|wakes| wakes.ended = Some(Ended::Displaced));
        }
        let bus = self.clone();
        Subscription { inbox, leave: Some(Box::new(move |inbox| bus.leave(mailbox, inbox))) }
    }

    fn wake(&self, mailbox: MailboxId, wake: Wake) -> bool {
        let listener = self.lock().get(&mailbox).cloned();
        let Some(inbox) = listener else { return false };
        inbox.wake(wake);
        true
    }

    fn has_listener(&self, mailbox: MailboxId) -> bool {
        self.lock().contains_key(&mailbox)
    }

    fn displace(&self, mailbox: MailboxId, before: i64) {
        let mut listeners = self.lock();
        let epoch = listeners.get(&mailbox).map(|inbox| inbox.epoch.load(Ordering::Relaxed));
        let displaced =
            epoch.is_some_and(|epoch| epoch < before && (epoch > 0 || before == i64::MAX));
        if displaced && let Some(inbox) = listeners.remove(&mailbox) {
            inbox.put(|wakes| wakes.ended = Some(Ended::Displaced));
        }
    }

    fn remove(&self, mailbox: MailboxId) {
        if let Some(inbox) = self.lock().remove(&mailbox) {
            inbox.put(|wakes| wakes.ended = Some(Ended::Removed));
        }
    }

    fn watch(&self, account: i64, most: usize) -> Option<Watch> {
        self.watches.watch(account, most)
    }

    fn linked(&self, account: i64) {
        self.watches.tell(account);
    }

    fn elsewhere(&self, _node: Option<NodeId>, _notice: Notice) {}

    fn listening(&self) -> Vec<Listening> {
        let listening = |(mailbox, inbox): (&MailboxId, &Arc<Inbox>)| Listening {
            mailbox: *mailbox,
            epoch: inbox.epoch.load(Ordering::Relaxed),
            seen: inbox.seen.load(Ordering::Relaxed),
        };
        self.lock().iter().map(listening).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::bus::Passing;
    use crate::storage::StoredEnvelope;

    const MAILBOX: MailboxId = MailboxId(1);

    fn stored(seq: i64) -> Wake {
        Wake::Stored(StoredEnvelope {
            seq,
            received_ms: 0,
            content: Bytes::new(),
            shared: Bytes::new(),
        })
    }

    #[tokio::test]
    async fn second_listener_displaces_the_first_and_keeps_the_place_when_that_leaves() {
        let bus = LocalBus::default();
        let first = bus.subscribe(MAILBOX);
        let second = bus.subscribe(MAILBOX);
        assert_eq!(first.next().await.ended, Some(Ended::Displaced));
        drop(first);
        bus.wake(MAILBOX, stored(1));
        assert_eq!(second.next().await.stored.len(), 1);
        drop(second);
        assert!(bus.lock().is_empty());
    }

    #[tokio::test]
    async fn listener_that_falls_behind_is_told_to_look_and_memory_stays_bounded() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        for seq in 0..10_000 {
            bus.wake(MAILBOX, stored(seq));
        }
        let wakes = listener.next().await;
        assert!(wakes.look && wakes.stored.is_empty());
    }

    #[tokio::test]
    async fn large_envelopes_count_by_their_bytes() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        for seq in 0..20 {
            let content = Bytes::from_static(&[0; 98_304]);
            bus.wake(
                MAILBOX,
                Wake::Stored(StoredEnvelope { seq, received_ms: 0, content, shared: Bytes::new() }),
            );
        }
        let wakes = listener.next().await;
        assert!(wakes.look && wakes.stored.is_empty());
    }

    #[tokio::test]
    async fn of_what_is_not_stored_the_newest_stays_and_memory_is_bounded() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        let passing = |received_ms, size| {
            Wake::Passing(Passing { content: vec![0; size].into(), received_ms })
        };
        for at in 0..1000 {
            bus.wake(MAILBOX, passing(at, 10));
        }
        let wakes = listener.next().await;
        let times: Vec<i64> = wakes.passing.iter().map(|passing| passing.received_ms).collect();
        assert_eq!(times, (968..1000).collect::<Vec<_>>());
        assert!(!wakes.look);
        for at in 0..10 {
            bus.wake(MAILBOX, passing(at, 98_304));
        }
        let times: Vec<i64> =
            listener.next().await.passing.iter().map(|it| it.received_ms).collect();
        assert_eq!(times, [8, 9]);
    }

    #[tokio::test]
    async fn only_an_earlier_connection_is_displaced() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        bus.displace(MAILBOX, 3);
        listener.claimed(3);
        listener.seen(9);
        bus.displace(MAILBOX, 3);
        assert_eq!(bus.listening(), [Listening { mailbox: MAILBOX, epoch: 3, seen: 9 }]);
        bus.displace(MAILBOX, 4);
        assert_eq!(listener.next().await.ended, Some(Ended::Displaced));
        assert!(bus.listening().is_empty());
        let listener = bus.subscribe(MAILBOX);
        bus.displace(MAILBOX, i64::MAX);
        assert_eq!(listener.next().await.ended, Some(Ended::Displaced));
    }

    #[tokio::test]
    async fn listener_of_a_device_that_is_gone_ends_whatever_its_epoch() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        listener.claimed(7);
        bus.remove(MailboxId(2));
        bus.heed(Notice::Removed(MAILBOX));
        assert_eq!(listener.next().await.ended, Some(Ended::Removed));
        assert!(bus.listening().is_empty());
    }

    #[tokio::test]
    async fn wake_up_before_the_wait_is_not_lost() {
        let bus = LocalBus::default();
        let listener = bus.subscribe(MAILBOX);
        bus.wake(MAILBOX, Wake::Keys);
        assert!(listener.next().await.keys);
    }
}
