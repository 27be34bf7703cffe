//! The bus of several nodes: a server of NATS or Redis carries numbers of mailboxes, never an envelope. A node listens on a
//! topic of its own and on one for all, under the name that the nodes of one store have in common. What is lost on the way is
//! found by the sweep.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;

use super::{Bus, Listening, LocalBus, Notice, Subscription, Wake, nats, notice, redis};
use crate::config::Address;
use crate::metrics;
use crate::storage::{MailboxId, NodeId};

/// Notices that may wait for the connection; beyond that they are left to the sweep.
const QUEUE: usize = 16_384;
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

/// A notice and the topic it goes to.
pub(super) type Addressed = (String, Bytes);

/// Bytes after which looks are no longer put together.
const LARGE: usize = 64 * 1024;

/// Puts the looks to one topic together: what was stored in one transaction is told a node once. The order of hints means
/// nothing.
pub(super) fn together(notices: Vec<Addressed>) -> Vec<Addressed> {
    let mut looks: BTreeMap<String, BytesMut> = BTreeMap::new();
    let mut all = Vec::with_capacity(notices.len());
    for (topic, notice) in notices {
        match notice::more_to_look_at(&notice) {
            None => all.push((topic, notice)),
            Some(mailboxes) => match looks.get_mut(&topic) {
                Some(look) if look.len() < LARGE => look.extend_from_slice(mailboxes),
                _ => {
                    let full = looks.insert(topic.clone(), BytesMut::from(&notice[..]));
                    all.extend(full.map(|full| (topic, full.freeze())));
                }
            },
        }
    }
    all.extend(looks.into_iter().map(|(topic, look)| (topic, look.freeze())));
    all
}

/// Where a node listens.
pub(super) struct Topics {
    pub(super) own: String,
    pub(super) all: String,
}

impl Topics {
    /// What a node sends itself to see that the bus works. Means nothing to anybody.
    pub(super) fn hello(&self) -> Addressed {
        (self.own.clone(), Notice::Look(Vec::new()).encode())
    }
}

/// A node among several.
pub struct NodesBus {
    local: LocalBus,
    name: String,
    notices: mpsc::Sender<Addressed>,
}

impl NodesBus {
    /// Connects and sees that notices come back. It reconnects by itself from then on.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn connect(address: &Address, name: String, node: NodeId) -> Result<Self, BusError> {
        let local = LocalBus::default();
        let (notices, waiting) = mpsc::channel(QUEUE);
        let topics = Topics { own: topic(&name, Some(node)), all: topic(&name, None) };
        match address.scheme() {
            Some("redis") => redis::connect(address, topics, local.clone(), waiting).await?,
            Some("rediss") => return Err(BusError::RedisTls),
            _ => nats::connect(address, topics, local.clone(), waiting).await?,
        }
        Ok(Self { local, name, notices })
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

    fn elsewhere(&self, node: Option<NodeId>, notice: Notice) {
        metrics::NOTICES.add(1);
        if self.notices.try_send((topic(&self.name, node), notice.encode())).is_err() {
            // The sweep will find it.
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

    fn look(topic: &str, mailboxes: std::ops::Range<i64>) -> Addressed {
        (topic.into(), Notice::Look(mailboxes.map(MailboxId).collect()).encode())
    }

    #[test]
    fn looks_to_one_topic_go_together_up_to_a_size_and_nothing_is_left_out() {
        let displaced = ("b".to_owned(), Notice::Displaced(MailboxId(1), 2).encode());
        let notices = vec![
            look("a", 0..1),
            look("b", 1..3),
            displaced.clone(),
            look("a", 3..5),
            look("a", 5..5),
        ];
        assert_eq!(together(notices), [displaced, look("a", 0..1).with(3..5), look("b", 1..3)]);
        let many = together(vec![look("a", 0..8000), look("a", 0..8000), look("a", 0..8000)]);
        assert_eq!(many.iter().map(|(_, notice)| notice.len()).sum::<usize>(), 2 + 3 * 64_000);
        assert!(many.iter().all(|(_, notice)| Notice::decode(notice).is_some()));
        assert!(together(Vec::new()).is_empty());
    }

    trait With {
        fn with(self, mailboxes: std::ops::Range<i64>) -> Self;
    }

    impl With for Addressed {
        fn with(self, mailboxes: std::ops::Range<i64>) -> Self {
            let Some(Notice::Look(mut all)) = Notice::decode(&self.1) else { panic!("no look") };
            all.extend(mailboxes.map(MailboxId));
            (self.0, Notice::Look(all).encode())
        }
    }
}
