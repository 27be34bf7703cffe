//! A content whose turn has come: a message goes into the inbox, a change or a key is carried out. Who sent it is
//! proven; what they may do in a group is judged in `membership.rs`.

use bytes::Bytes;
use tuckseal::content::{Body, Content, Data, GroupContext, Sync, Transcript};
use tuckseal::{Address, SenderKeyDistributionMessage, Timestamp};

use super::{devices, membership};
use crate::event::Event;
use crate::message::GroupId;
use crate::store::{Peer, ProfileError, Rows};

/// From whom and when something came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Came {
    pub(super) sender: Address,
    /// When it came in.
    pub(super) since: Timestamp,
    /// When the sender says it was sent.
    pub(super) sent: Timestamp,
}

/// What of a content is kept until its turn comes; `None` when there is nothing to wait for.
pub(super) fn keep(content: &Content) -> Option<Vec<u8>> {
    let (body, sender_key) = match &content.body {
        Body::Data(data) => (Body::Data(data.clone()), content.sender_key.clone()),
        Body::Sync(sync) => (Body::Sync(sync.clone()), None),
        _ => (Body::Nothing, content.sender_key.clone()),
    };
    let is_something = body != Body::Nothing || sender_key.is_some();
    is_something.then(|| Content { body, sender_key, ..Content::default() }.encode())
}

/// Carries out what [`keep`] has kept; what the app hears of it.
pub(super) fn deliver(
    rows: Rows<'_>,
    came: Came,
    missing: u64,
    kept: &[u8],
) -> Result<Vec<Event>, ProfileError> {
    let content = Content::decode(kept).map_err(|_| ProfileError::Damaged { what: "early" })?;
    let mut events = Vec::new();
    match content.body {
        Body::Data(data) => events.extend(take_data(rows, came, missing, data)?),
        Body::Sync(sync) => events.extend(take_sync(rows, came, missing, sync)?),
        _ => {}
    }
    if let Some(key) = content.sender_key {
        take_key(rows, came.sender, &key)?;
    }
    // One that had waited and comes with a change says nothing of it.
    let is_said = |event: &Event| matches!(event, Event::Message(it) if it.missing_before > 0);
    if missing > 0 && !events.iter().any(is_said) {
        events.push(Event::Missing { account: came.sender.service_id, count: missing });
    }
    Ok(events)
}

/// What another device of ours has done.
fn take_sync(
    rows: Rows<'_>,
    came: Came,
    missing: u64,
    sync: Sync,
) -> Result<Vec<Event>, ProfileError> {
    let Came { sender, sent, .. } = came;
    match sync {
        Sync::Sent(Transcript {
            data: data @ Data { group: Some(GroupContext { change: Some(_), .. }), .. },
            ..
        }) => membership::take(rows, came, missing, data),
        Sync::Sent(transcript) => {
            if let Some(to) = transcript.to
                && rows.peer(to)?.is_none()
            {
                rows.save_peer(&Peer::unknown(to))?;
            }
            if let Some(context) = &transcript.data.group {
                rows.answer_inviter(GroupId(context.id))?;
            }
            let at = transcript.timestamp;
            let content = Content::new(Body::Sync(Sync::Sent(transcript)), at);
            Ok(vec![Event::Message(rows.insert_inbox(sender, at, missing, content)?)])
        }
        Sync::History(archive) => {
            let content = Content::new(Body::Sync(Sync::History(archive)), sent);
            Ok(vec![Event::Message(rows.insert_inbox(sender, sent, missing, content)?)])
        }
        Sync::Read(marks) => {
            let mut messages = Vec::new();
            for mark in &marks {
                messages.extend(rows.inbox_marked(mark)?);
            }
            let is_news = !messages.is_empty();
            Ok(is_news.then_some(Event::ReadElsewhere { messages }).into_iter().collect())
        }
        Sync::Contacts(contacts) => {
            for contact in contacts {
                devices::take_contact(rows, sender.service_id, contact)?;
            }
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

/// A message for us, or something for a group.
pub(super) fn take_data(
    rows: Rows<'_>,
    came: Came,
    missing: u64,
    data: Data,
) -> Result<Vec<Event>, ProfileError> {
    if data.group.is_some() {
        return membership::take(rows, came, missing, data);
    }
    let content = Content::new(Body::Data(data), came.sent);
    Ok(vec![Event::Message(rows.insert_inbox(came.sender, came.sent, missing, content)?)])
}

fn take_key(rows: Rows<'_>, sender: Address, key: &Bytes) -> Result<(), ProfileError> {
    // One that cannot be read is missed when a message needs it.
    let Ok(message) = SenderKeyDistributionMessage::decode(key) else { return Ok(()) };
    let mut record = rows.sender_key(sender, message.distribution_id())?;
    record.process(&message);
    rows.save_sender_key(sender, message.distribution_id(), &record)
}
