//! The bus of several nodes: NATS core carries numbers of mailboxes, never an envelope. A node listens on its own
//! subject and on one for all, under the name that the nodes of one store have in common. What is lost on the way is found by the sweep.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::{Bus, Listening, LocalBus, Notice, Subscription, Wake};
use crate::config::Address;
use crate::metrics;
use crate::storage::{MailboxId, NodeId};

/// Notices that may wait for the connection; beyond that they are left to the sweep.
const QUEUE: usize = 16_384;
/// How long the bus has to give back what this node tells itself.
const LOOP: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(5);

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
}

/// A node among several.
pub struct NatsBus {
    local: LocalBus,
    name: String,
    notices: mpsc::Sender<(String, Bytes)>,
}

impl NatsBus {
    /// Connects and sees that notices come back. It reconnects by itself from then on.
    ///
    /// # Errors
    /// [`BusError`].
    pub async fn connect(address: &Address, name: String, node: NodeId) -> Result<Self, BusError> {
        let options = ConnectOptions::new().name("tuckseal-server").connection_timeout(CONNECT);
        let client = options
            .connect(address.revealed())
            .await
            .map_err(|source| BusError::Unreachable { address: address.clone(), source })?;
        let local = LocalBus::default();
        let own = client.subscribe(subject(&name, Some(node))).await?;
        let all = client.subscribe(subject(&name, None)).await?;
        let mut incoming = futures_util::stream::select(own, all);
        let hello = Notice::Look(Vec::new()).encode();
        let looped = async {
            let published = client.publish(subject(&name, Some(node)), hello).await.is_ok();
            published && client.flush().await.is_ok() && incoming.next().await.is_some()
        };
        if !tokio::time::timeout(LOOP, looped).await.unwrap_or(false) {
            return Err(BusError::NoLoop);
        }
        let listener = local.clone();
        tokio::spawn(async move {
            while let Some(message) = incoming.next().await {
                match Notice::decode(&message.payload) {
                    Some(notice) => listener.heed(notice),
                    None => tracing::warn!("a notice of another version on the bus"),
                }
            }
        });
        let (notices, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(publish(client, waiting));
        Ok(Self { local, name, notices })
    }
}

async fn publish(client: Client, mut waiting: mpsc::Receiver<(String, Bytes)>) {
    while let Some((subject, notice)) = waiting.recv().await {
        if let Err(error) = client.publish(subject, notice).await {
            tracing::warn!(%error, "a notice was not sent");
        }
    }
}

impl Bus for NatsBus {
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
        if self.notices.try_send((subject(&self.name, node), notice.encode())).is_err() {
            // The sweep will find it.
            metrics::NOTICES_LOST.add(1);
        }
    }

    fn listening(&self) -> Vec<Listening> {
        self.local.listening()
    }
}

fn subject(name: &str, node: Option<NodeId>) -> String {
    let node = node.map_or_else(|| "all".into(), |node| format!("{:x}", node.0));
    format!("tuckseal.{name}.{node}")
}
