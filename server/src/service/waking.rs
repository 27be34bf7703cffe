//! What follows the store's answer to a submission: it is counted, devices that are connected get what was stored, the others are
//! woken.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::push::Reason;
use crate::bus::{Bus, Notice, Wake};
use crate::metrics;
use crate::storage::{Append, AppendAnswer, MailboxId, NodeId, Placed, Recipient, StoredEnvelope};

pub(super) fn count(answers: &[AppendAnswer]) {
    for answer in answers {
        match answer {
            AppendAnswer::Stored(placed) => {
                metrics::ACCEPTED.add(placed.len() as u64);
                metrics::DROPPED.add(placed.iter().map(|placed| placed.dropped).sum());
            }
            AppendAnswer::Repeated => metrics::REPEATED.add(1),
            _ => metrics::REFUSED.add(1),
        }
    }
}

/// One notice for each other node that has a recipient: numbers of mailboxes, no envelope.
pub(super) fn wake_elsewhere(
    bus: &dyn Bus,
    here: NodeId,
    places: impl Iterator<Item = (MailboxId, Option<NodeId>)>,
) {
    let mut nodes: BTreeMap<NodeId, Vec<MailboxId>> = BTreeMap::new();
    for (mailbox, node) in places {
        if let Some(node) = node.filter(|node| *node != here) {
            nodes.entry(node).or_default().push(mailbox);
        }
    }
    for (node, mailboxes) in nodes {
        bus.elsewhere(Some(node), Notice::Look(mailboxes));
    }
}

/// Where envelopes were stored now.
pub(super) fn stored(
    answers: &[AppendAnswer],
) -> impl Iterator<Item = (MailboxId, Option<NodeId>)> {
    let placed = answers.iter().filter_map(|answer| match answer {
        AppendAnswer::Stored(placed) => Some(placed),
        _ => None,
    });
    placed.flatten().map(|placed| (placed.mailbox, placed.node))
}

/// A submission as it is handed over once it is stored.
pub(super) struct Envelopes {
    pub(super) recipients: Vec<Recipient>,
    pub(super) shared: Bytes,
}

impl From<&Append> for Envelopes {
    fn from(append: &Append) -> Self {
        Self { recipients: append.recipients.clone(), shared: append.shared.clone() }
    }
}

/// Gives those whose device is not connected here.
pub(super) fn wake<'a>(
    bus: &dyn Bus,
    placed: &'a [Placed],
    to: Recipient,
    (shared, received_ms): (&Bytes, i64),
) -> Vec<&'a Placed> {
    let mut away = Vec::new();
    for (placed, message) in placed.iter().zip(to.messages) {
        let (content, shared) = (message.content, shared.clone());
        let envelope = StoredEnvelope { seq: placed.seq, received_ms, content, shared };
        if !bus.wake(placed.mailbox, Wake::Stored(envelope)) {
            away.push(placed);
        }
        if placed.dropped > 0 {
            // The mailbox knows how many; the device is to be told.
            bus.wake(placed.mailbox, Wake::Look);
        }
    }
    away
}

/// A device that is at another node is woken only if it does not fetch there: the node may be no more.
pub(super) fn reason(node: Option<NodeId>, here: NodeId) -> Reason {
    match node {
        Some(node) if node != here => Reason::Unfetched,
        _ => Reason::Away,
    }
}
