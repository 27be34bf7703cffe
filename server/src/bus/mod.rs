//! Waking a connected device. Only a hint: what is not in a wake-up is found in the mailbox.

mod local;
mod nats;
mod nodes;
mod notice;
#[cfg(test)]
pub(crate) mod peek;
mod redis;
mod watch;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

pub use local::LocalBus;
pub use nodes::{BusError, NodesBus};
pub use notice::Notice;
pub use watch::Watch;

use crate::metrics;
use crate::storage::{MailboxId, NodeId, StoredEnvelope};

/// Envelopes that may wait for a connection in memory; beyond that it reads its mailbox. Few in tests, which go beyond that
/// with what they hand in.
const WAITING: usize = if cfg!(test) { 2 } else { 256 };
/// Bytes of their bodies.
const WAITING_BYTES: usize = 1024 * 1024;

/// Of what is not stored, so many may wait for a connection.
const PASSING: usize = 32;
/// Bytes of these.
const PASSING_BYTES: usize = 256 * 1024;

/// Something for a connected device.
#[derive(Debug, Clone)]
pub enum Wake {
    /// An envelope that has just been stored.
    Stored(StoredEnvelope),
    /// Something was stored or dropped: read the mailbox.
    Look,
    /// Something that is not stored.
    Passing(Passing),
    /// Prekeys run low or the last-resort one was used.
    Keys,
}

/// Handed to a connected device or to nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passing {
    /// A sealed envelope.
    pub content: Bytes,
    /// When it was handed in, in milliseconds.
    pub received_ms: i64,
}

/// Connects those who store with those who deliver.
pub trait Bus: Send + Sync + 'static {
    /// Takes the place of the mailbox's listener; one that was there learns that it is displaced.
    fn subscribe(&self, mailbox: MailboxId) -> Subscription;

    /// Tells the listener, if there is one on this node, and says whether there is.
    fn wake(&self, mailbox: MailboxId, wake: Wake) -> bool;

    /// Whether there is a listener on this node.
    fn has_listener(&self, mailbox: MailboxId) -> bool;

    /// Ends the listener, if there is one on this node with an epoch before this one, as if another had taken its
    /// place. A listener that has no epoch yet stays: if it is late, the sweep sees it.
    fn displace(&self, mailbox: MailboxId, before: i64);

    /// Ends the listener, if there is one on this node: its device is gone.
    fn remove(&self, mailbox: MailboxId);

    /// Watches for a device that is linked to the account of this number; none if so many do already on this node.
    fn watch(&self, account: i64, most: usize) -> Option<Watch>;

    /// Tells those who watch on this node that a device was linked.
    fn linked(&self, account: i64);

    /// Tells another node, or all others. It may get lost.
    fn elsewhere(&self, node: Option<NodeId>, notice: Notice);

    /// The listeners of this node.
    fn listening(&self) -> Vec<Listening>;
}

/// A listener, for the sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Whose.
    pub mailbox: MailboxId,
    /// Of its claim; 0 before that, and where there is one node alone.
    pub epoch: i64,
    /// The place up to which it has seen the mailbox.
    pub seen: i64,
}

/// Why a listener has no place any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Another listener has the mailbox now.
    Displaced,
    /// The device was removed, and its mailbox with it.
    Removed,
}

/// What came in since the last look.
#[derive(Debug, Default)]
pub struct Wakes {
    /// In the order in which they were handed over, which may differ from that of the mailbox.
    pub stored: VecDeque<StoredEnvelope>,
    /// What is not stored, the oldest first.
    pub passing: VecDeque<Passing>,
    /// Read the mailbox.
    pub look: bool,
    /// Tell the prekey counts.
    pub keys: bool,
    /// It was the last.
    pub ended: Option<Ended>,
    bytes: usize,
    passing_bytes: usize,
}

impl Wakes {
    fn store(&mut self, envelope: StoredEnvelope) {
        self.bytes = self.bytes.saturating_add(envelope.size());
        if self.stored.len() < WAITING && self.bytes <= WAITING_BYTES {
            self.stored.push_back(envelope);
        } else {
            self.look_instead();
        }
    }

    /// The newest is worth most.
    fn pass(&mut self, passing: Passing) {
        self.passing_bytes = self.passing_bytes.saturating_add(passing.content.len());
        self.passing.push_back(passing);
        while self.passing.len() > PASSING || self.passing_bytes > PASSING_BYTES {
            let Some(oldest) = self.passing.pop_front() else { return };
            self.passing_bytes = self.passing_bytes.saturating_sub(oldest.content.len());
            metrics::EPHEMERAL_LOST.add(1);
        }
    }

    fn look_instead(&mut self) {
        self.stored = VecDeque::new();
        self.look = true;
    }
}

/// A listener's place. Dropping it gives the place up.
pub struct Subscription {
    inbox: Arc<Inbox>,
    leave: Option<Leave>,
}

/// Gives the place of this inbox up, if it has it still.
type Leave = Box<dyn FnOnce(&Arc<Inbox>) + Send + Sync>;

impl Subscription {
    /// The mailbox is claimed.
    pub fn claimed(&self, epoch: i64) {
        self.inbox.epoch.store(epoch, Ordering::Relaxed);
    }

    /// Why it has no place any more, if it has none.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.inbox.lock().as_ref().and_then(|wakes| wakes.ended)
    }

    /// The mailbox has been seen up to this place.
    pub fn seen(&self, place: i64) {
        self.inbox.seen.store(place, Ordering::Relaxed);
    }

    /// Waits until there is something. Cancelling the wait loses nothing.
    pub async fn next(&self) -> Wakes {
        loop {
            let woken = self.inbox.notify.notified();
            if let Some(wakes) = self.inbox.take() {
                return wakes;
            }
            woken.await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(leave) = self.leave.take() {
            leave(&self.inbox);
        }
    }
}

#[derive(Default)]
struct Inbox {
    wakes: Mutex<Option<Wakes>>,
    notify: Notify,
    epoch: AtomicI64,
    seen: AtomicI64,
}

impl Inbox {
    fn put(&self, change: impl FnOnce(&mut Wakes)) {
        change(self.lock().get_or_insert_default());
        self.notify.notify_one();
    }

    fn wake(&self, wake: Wake) {
        self.put(|wakes| match wake {
            Wake::Stored(_) if wakes.look => {}
            Wake::Stored(envelope) => wakes.store(envelope),
            Wake::Look => wakes.look_instead(),
            Wake::Passing(passing) => wakes.pass(passing),
            Wake::Keys => wakes.keys = true,
        });
    }

    fn take(&self) -> Option<Wakes> {
        self.lock().take()
    }

    /// The wake-ups are whole between statements, so a poisoned lock does no harm.
    fn lock(&self) -> MutexGuard<'_, Option<Wakes>> {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
