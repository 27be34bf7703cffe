//! What follows the store's answer to a submission: it is counted, devices that are connected get what was stored, the others are
//! woken.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::push::Reason;
use crate::bus::{Bus, Notice, Wake};
use crate::metrics;
use crate::storage::{Append, AppendAnswer, MailboxId, NodeId, Placed, StoredEnvelope};

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
pub(super) fn wake_elsewhere(bus: &dyn Bus, here: NodeId, answers: &[AppendAnswer]) {
    let mut nodes: BTreeMap<NodeId, Vec<MailboxId>> = BTreeMap::new();
    for answer in answers {
        let AppendAnswer::Stored(placed) = answer else { continue };
        for placed in placed {
            if let Some(node) = placed.node.filter(|node| *node != here) {
                nodes.entry(node).or_default().push(placed.mailbox);
            }
        }
    }
    for (node, mailboxes) in nodes {
        bus.elsewhere(Some(node), Notice::Look(mailboxes));
    }
}

/// The envelopes of a submission, to be handed over once they are stored.
pub(super) struct Envelopes {
    /// By recipient, by device.
    pub(super) contents: Vec<Vec<Bytes>>,
    pub(super) shared: Bytes,
}

pub(super) fn envelopes(append: &Append) -> Envelopes {
    let contents = append.recipients.iter();
    let contents = contents.map(|to| to.messages.iter().map(|m| m.content.clone()).collect());
    Envelopes { contents: contents.collect(), shared: append.shared.clone() }
}

/// Gives those whose device is not connected here.
pub(super) fn wake<'a>(
    bus: &dyn Bus,
    placed: &'a [Placed],
    contents: Vec<Bytes>,
    (shared, received_ms): (&Bytes, i64),
) -> Vec<&'a Placed> {
    let mut away = Vec::new();
    for (placed, content) in placed.iter().zip(contents) {
        let shared = shared.clone();
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
pub(super) fn reason(placed: &Placed, here: NodeId) -> Reason {
    match placed.node {
        Some(node) if node != here => Reason::Unfetched,
        _ => Reason::Away,
    }
}
