//! What is handed over and never stored: to devices that are connected, at this node or, over the bus, at another. Who is away
//! gets nothing, and whoever sent it is not told.

use bytes::Bytes;

use super::error::ServiceError;
use super::intake::Outcome;
use super::now_ms;
use super::relay::Relay;
use crate::bus::{Notice, Passing, Wake};
use crate::metrics;
use crate::storage::{Location, Recipient};

impl Relay {
    pub(super) async fn hand_over(
        &self,
        recipients: Vec<Recipient>,
        shared: &Bytes,
    ) -> Result<Vec<Outcome>, ServiceError> {
        let received_ms = now_ms();
        let contents: Vec<Vec<Bytes>> = recipients.iter().map(contents).collect();
        let located = self.store.locate(recipients).await?;
        let mut answers = Vec::with_capacity(located.len());
        for (located, contents) in located.into_iter().zip(contents) {
            answers.push(match located {
                Ok(locations) => {
                    for (location, content) in locations.into_iter().zip(contents) {
                        let content = whole(content, shared);
                        self.hand_to(location, Passing { content, received_ms });
                    }
                    Outcome::Accepted
                }
                Err(refusal) => {
                    metrics::REFUSED.add(1);
                    Outcome::Refused(refusal)
                }
            });
        }
        Ok(answers)
    }

    /// Whether what was handed in then is worth nothing any more.
    #[must_use]
    pub fn is_stale(&self, received_ms: i64) -> bool {
        now_ms().saturating_sub(received_ms) > self.ephemeral_ms
    }

    fn hand_to(&self, Location { mailbox, node }: Location, passing: Passing) {
        metrics::EPHEMERAL.add(1);
        if self.bus.wake(mailbox, Wake::Passing(passing.clone())) {
            return;
        }
        match node.filter(|node| *node != self.node) {
            Some(node) => self.bus.elsewhere(Some(node), Notice::Passing(mailbox, passing)),
            None => metrics::EPHEMERAL_LOST.add(1),
        }
    }
}

/// For each device.
fn contents(to: &Recipient) -> Vec<Bytes> {
    to.messages.iter().map(|message| message.content.clone()).collect()
}

fn whole(content: Bytes, shared: &Bytes) -> Bytes {
    if shared.is_empty() { content } else { [&content[..], shared].concat().into() }
}
