//! The bus of several nodes: a server of NATS or Redis carries numbers of mailboxes, never an envelope. A node listens on a
//! topic of its own and on one for all, under the name that the nodes of one store have in common. What is lost on the way is
//! found by the sweep.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Bus, Listening, LocalBus, Notice, Subscription, Wake, Watch, nats, redis};
use crate::config::Address;
use crate::metrics;
use crate::storage::{MailboxId, NodeId};

/// Notices that may wait for the connection; beyond that they are left to the sweep.
const QUEUE: usize = 16_384;
/// Bytes of contents that may wait with them; beyond that they are lost.
const CONTENTS: usize = 4 * 1024 * 1024;
/// How long the bus has to give back what this node tells itself.
pub(super) const LOOP: Duration = Duration::from_secs(3);
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// Why the bus cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody answers, or the server refuses.
    #[error(
        "NATS cannot be reached at {address} ({source}); check that it runs and takes this user"
    )]
    Unreachable {
        /// As set.
        address: Address,
        /// Why.
        source: async_nats::ConnectError,
    },
    /// The subject cannot be listened on.
    #[error("NATS does not let this node listen ({0}); allow the subjects tuckseal.>")]
    Refused(#[from] async_nats::SubscribeError),
    /// What was sent did not come back.
    #[error(
        "NATS does not give back what is sent to tuckseal.>; allow this node to publish and listen there"
    )]
    NoLoop,
    /// Nobody answers, or the server refuses.
    #[error(
        "Redis cannot be reached at {address} ({source}); check that it runs and takes this user and password"
    )]
    RedisUnreachable {
        /// As set.
        address: Address,
        /// Why.
        source: ::redis::RedisError,
    },
    /// The channel cannot be listened on or published to.
    #[error(
        "Redis does not let this node use its channels ({0}); allow its user +subscribe +publish &tuckseal.*"
    )]
    RedisRefused(#[source] ::redis::RedisError),
    /// What was sent did not come back.
    #[error("Redis does not give back what is published to tuckseal.*; see what stands between")]
    RedisNoLoop,
    /// The address asks for TLS to Redis.
    #[error(
        "the connection to Redis is not encrypted; use redis:// over loopback or a private network"
    )]
    RedisTls,
}

/// A notice for a node, or for all others.
pub(super) struct Told {
    node: Option<NodeId>,
    notice: Notice,
    /// What its content takes of the room for contents.
    _room: Option<OwnedSemaphorePermit>,
}

/// A notice as the bus carries it, and the topic it goes to.
pub(super) type Addressed = (String, Bytes);

/// Mailboxes after which looks are no longer put together.
const LARGE: usize = 8192;

/// Where nodes listen.
pub(super) struct Topics {
    name: String,
    pub(super) own: String,
    pub(super) all: String,
}

impl Topics {
    pub(super) fn new(name: String, node: NodeId) -> Self {
        Self { own: topic(&name, Some(node)), all: topic(&name, None), name }
    }

    /// What a node sends itself to see that the bus works. Means nothing to anybody.
    pub(super) fn hello(&self) -> Addressed {
        (self.own.clone(), Notice::Look(Vec::new()).encode())
    }

    /// Puts the looks for one node together: what was stored in one transaction is told it once. The order of hints means
    /// nothing.
    pub(super) fn addressed(&self, told: Vec<Told>) -> Vec<Addressed> {
        let mut looks: BTreeMap<Option<NodeId>, Vec<MailboxId>> = BTreeMap::new();
        let mut all = Vec::new();
        let mut push = |node, notice: Notice| all.push((topic(&self.name, node), notice.encode()));
        for Told { node, notice, .. } in told {
            let Notice::Look(mailboxes) = notice else {
                push(node, notice);
                continue;
            };
            let look = looks.entry(node).or_default();
            look.extend(mailboxes);
            if look.len() >= LARGE {
                push(node, Notice::Look(std::mem::take(look)));
            }
        }
        for (node, look) in looks.into_iter().filter(|(_, look)| !look.is_empty()) {
            push(node, Notice::Look(look));
        }
        all
    }
}

/// A node among several.
pub struct NodesBus {
    pub(super) local: LocalBus,
    notices: mpsc::Sender<Told>,
    room: Arc<Semaphore>,
}

impl NodesBus {
    /// Connects and sees that notices come back. It reconnects by itself from then on.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn connect(address: &Address, name: String, node: NodeId) -> Result<Self, BusError> {
        let (bus, waiting) = Self::new();
        let (topics, local) = (Topics::new(name, node), bus.local.clone());
        match address.scheme() {
            Some("redis") => redis::connect(address, topics, local, waiting).await?,
            Some("rediss") => return Err(BusError::RedisTls),
            _ => nats::connect(address, topics, local, waiting).await?,
        }
        Ok(bus)
    }

    /// A bus, and what is to be carried to other nodes.
    pub(super) fn new() -> (Self, mpsc::Receiver<Told>) {
        let (notices, waiting) = mpsc::channel(QUEUE);
        let room = Arc::new(Semaphore::new(CONTENTS));
        (Self { local: LocalBus::default(), notices, room }, waiting)
    }

    /// None if too much waits already.
    fn told(&self, node: Option<NodeId>, notice: Notice) -> Option<Told> {
        let size = match &notice {
            Notice::Passing(_, passing) => u32::try_from(passing.content.len()).ok()?,
            _ => return Some(Told { node, notice, _room: None }),
        };
        let room = Arc::clone(&self.room).try_acquire_many_owned(size).ok()?;
        Some(Told { node, notice, _room: Some(room) })
    }
}

/// Does what another node tells.
pub(super) fn heed(local: &LocalBus, notice: &[u8]) {
    match Notice::decode(notice) {
        Some(notice) => local.heed(notice),
        None => tracing::warn!("a notice of another version on the bus"),
    }
}

impl Bus for NodesBus {
    fn subscribe(&self, mailbox: MailboxId) -> Subscription {
        self.local.subscribe(mailbox)
    }

    fn wake(&self, mailbox: MailboxId, wake: Wake) -> bool {
        self.local.wake(mailbox, wake)
    }

    fn has_listener(&self, mailbox: MailboxId) -> bool {
        self.local.has_listener(mailbox)
    }

    fn displace(&self, mailbox: MailboxId, before: i64) {
        self.local.displace(mailbox, before);
    }

    fn remove(&self, mailbox: MailboxId) {
        self.local.remove(mailbox);
    }

    fn watch(&self, account: i64, most: usize) -> Option<Watch> {
        self.local.watch(account, most)
    }

    fn linked(&self, account: i64) {
        self.local.linked(account);
    }

    fn elsewhere(&self, node: Option<NodeId>, notice: Notice) {
        metrics::NOTICES.add(1);
        let told = self.told(node, notice);
        if told.is_none_or(|told| self.notices.try_send(told).is_err()) {
            // The sweep will find it, unless it was to be now or never.
            metrics::NOTICES_LOST.add(1);
        }
    }

    fn listening(&self) -> Vec<Listening> {
        self.local.listening()
    }
}

fn topic(name: &str, node: Option<NodeId>) -> String {
    let node = node.map_or_else(|| "all".into(), |node| format!("{:x}", node.0));
    format!("tuckseal.{name}.{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<NodeId> = Some(NodeId(10));
    const ALL: Option<NodeId> = None;

    fn look(mailboxes: std::ops::Range<i64>) -> Notice {
        Notice::Look(mailboxes.map(MailboxId).collect())
    }

    #[test]
    fn looks_for_one_node_go_together_up_to_a_size_and_nothing_is_left_out() {
        let topics = Topics::new("n".into(), NodeId(1));
        let displaced = || Notice::Displaced(MailboxId(1), 2);
        let told = |all: Vec<(Option<NodeId>, Notice)>| {
            all.into_iter().map(|(node, notice)| Told { node, notice, _room: None }).collect()
        };
        let several = told(vec![
            (A, look(0..1)),
            (ALL, look(1..3)),
            (A, displaced()),
            (A, look(1..5)),
            (A, look(5..5)),
        ]);
        let read = |(topic, notice): Addressed| (topic, Notice::decode(&notice).unwrap());
        let addressed = |told| topics.addressed(told).into_iter().map(read).collect::<Vec<_>>();
        let (a, all) = ("tuckseal.n.a".to_owned(), "tuckseal.n.all".to_owned());
        assert_eq!(
            addressed(several),
            [(a.clone(), displaced()), (all, look(1..3)), (a.clone(), look(0..5))]
        );
        let large = LARGE as i64;
        let many = addressed(told(vec![(A, look(0..large)), (A, look(large..large + 1))]));
        assert_eq!(many, [(a.clone(), look(0..large)), (a, look(large..large + 1))]);
        assert!(addressed(Vec::new()).is_empty());
    }
}
