//! The bus in the hands of a simulation: notices that somebody carries or loses, and a look at what waits for a connection.
//! In tests alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::nodes::{Addressed, Told, Topics, heed};
use super::{Bus, Inbox, LocalBus, NodesBus, Notice, Subscription};
use crate::storage::{MailboxId, NodeId};

/// The line of one node to the others.
pub(crate) struct Line {
    topics: Topics,
    local: LocalBus,
    waiting: mpsc::Receiver<Told>,
}

impl Line {
    pub(crate) fn new(node: NodeId) -> (NodesBus, Self) {
        let (bus, waiting) = NodesBus::new();
        let local = bus.local.clone();
        (bus, Self { topics: Topics::new("simulated".into(), node), local, waiting })
    }

    /// Where this node listens.
    pub(crate) fn topic(&self) -> &str {
        &self.topics.own
    }

    /// What the node has told others since the last look, as it goes over the bus.
    pub(crate) fn sent(&mut self) -> Vec<Addressed> {
        let told = std::iter::from_fn(|| self.waiting.try_recv().ok()).collect();
        self.topics.addressed(told)
    }

    /// Something arrives at the node.
    pub(crate) fn arrives(&self, notice: &[u8]) {
        heed(&self.local, notice);
    }

    pub(crate) fn has_listeners(&self) -> bool {
        !self.local.listening().is_empty()
    }

    pub(crate) fn has_listener(&self, mailbox: MailboxId) -> bool {
        self.local.has_listener(mailbox)
    }

    /// Whether it is this one that has the place of the mailbox's listener.
    pub(crate) fn is_listener(&self, mailbox: MailboxId, one: &Peek) -> bool {
        self.local.inbox(mailbox).is_some_and(|inbox| Arc::ptr_eq(&inbox, &one.0))
    }
}

/// What a notice says: its kind and, of what it says of the mailbox, a number.
pub(crate) fn mark(notice: &[u8]) -> (u8, i64) {
    match Notice::decode(notice) {
        Some(Notice::Look(mailboxes)) => (1, mailboxes.len() as i64),
        Some(Notice::Keys(_)) => (2, 0),
        Some(Notice::Displaced(_, epoch)) => (3, epoch),
        Some(Notice::Removed(_)) => (5, 0),
        Some(Notice::Linked(account)) => (6, account),
        Some(Notice::Passing(_, passing)) => {
            (4, passing.content.first().map_or(0, |byte| i64::from(*byte)))
        }
        None => (0, 0),
    }
}

/// What waits for one connection.
pub(crate) struct Peek(Arc<Inbox>);

impl Subscription {
    pub(crate) fn peek(&self) -> Peek {
        Peek(Arc::clone(&self.inbox))
    }
}

/// Places, look, whether it has ended, contents that are not stored.
pub(crate) type Waiting = (Vec<i64>, bool, bool, Vec<Bytes>);

impl Peek {
    /// None: nothing.
    pub(crate) fn waiting(&self) -> Option<Waiting> {
        let wakes = self.0.lock();
        let wakes = wakes.as_ref()?;
        let stored = wakes.stored.iter().map(|envelope| envelope.seq).collect();
        let passing = wakes.passing.iter().map(|passing| passing.content.clone()).collect();
        Some((stored, wakes.look, wakes.ended.is_some(), passing))
    }

    pub(crate) fn epoch(&self) -> i64 {
        self.0.epoch.load(Ordering::Relaxed)
    }

    pub(crate) fn seen(&self) -> i64 {
        self.0.seen.load(Ordering::Relaxed)
    }
}
