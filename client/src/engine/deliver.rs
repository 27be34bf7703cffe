//! A content whose turn has come: a message goes into the inbox, a change of a group or a key is carried
//! out. Who sent it is proven; what they may do is judged here.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tuckseal::content::{Body, Content, Data, GroupChange, GroupContext, Sync, Transcript};
use tuckseal::{Address, SenderKeyDistributionMessage, ServiceId, Timestamp};

use super::devices;
use crate::event::{Event, Failure};
use crate::message::GroupId;
use crate::store::{Group, Peer, ProfileError, Rows, Standing};

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
    sender: Address,
    sent: Timestamp,
    missing: u64,
    kept: &[u8],
) -> Result<Vec<Event>, ProfileError> {
    let content = Content::decode(kept).map_err(|_| ProfileError::Damaged { what: "early" })?;
    let mut events = Vec::new();
    match content.body {
        Body::Data(Data {
            group: Some(GroupContext { id, revision, change: Some(change) }),
            ..
        }) => {
            events.extend(take_change(rows, sender, GroupId(id), revision, change)?);
        }
        Body::Data(data) => events.push(take_data(rows, sender, sent, missing, data)?),
        Body::Sync(sync) => events.extend(take_sync(rows, sender, sent, missing, sync)?),
        _ => {}
    }
    if let Some(key) = content.sender_key {
        take_key(rows, sender, &key)?;
    }
    if missing > 0 && !events.iter().any(|event| matches!(event, Event::Message(_))) {
        events.push(Event::Missing { account: sender.service_id, count: missing });
    }
    Ok(events)
}

/// What another device of ours has done.
fn take_sync(
    rows: Rows<'_>,
    sender: Address,
    sent: Timestamp,
    missing: u64,
    sync: Sync,
) -> Result<Option<Event>, ProfileError> {
    match sync {
        Sync::Sent(Transcript {
            data: Data { group: Some(GroupContext { id, revision, change: Some(change) }), .. },
            ..
        }) => take_change(rows, sender, GroupId(id), revision, change),
        Sync::Sent(transcript) => {
            if let Some(to) = transcript.to
                && rows.peer(to)?.is_none()
            {
                rows.save_peer(&Peer::unknown(to))?;
            }
            let at = transcript.timestamp;
            let content = Content::new(Body::Sync(Sync::Sent(transcript)), at);
            Ok(Some(Event::Message(rows.insert_inbox(sender, at, missing, content)?)))
        }
        Sync::History(archive) => {
            let content = Content::new(Body::Sync(Sync::History(archive)), sent);
            Ok(Some(Event::Message(rows.insert_inbox(sender, sent, missing, content)?)))
        }
        Sync::Read(marks) => {
            let mut messages = Vec::new();
            for mark in &marks {
                messages.extend(rows.inbox_marked(mark)?);
            }
            Ok((!messages.is_empty()).then_some(Event::ReadElsewhere { messages }))
        }
        Sync::Contacts(contacts) => {
            for contact in contacts {
                devices::take_contact(rows, sender.service_id, contact)?;
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// A message, for us or for a group that its sender is in.
pub(super) fn take_data(
    rows: Rows<'_>,
    sender: Address,
    sent: Timestamp,
    missing: u64,
    data: Data,
) -> Result<Event, ProfileError> {
    let account = sender.service_id;
    if let Some(context) = &data.group
        && !may_write(rows, GroupId(context.id), account)?
    {
        let reason = Failure::NotAMember;
        return Ok(Event::Failure { account: Some(account), reason, count: 1 });
    }
    let content = Content::new(Body::Data(data), sent);
    Ok(Event::Message(rows.insert_inbox(sender, sent, missing, content)?))
}

/// Members write to a group that we are in. Of a group that we have not heard of yet, nobody knows.
pub(super) fn may_write(
    rows: Rows<'_>,
    id: GroupId,
    account: ServiceId,
) -> Result<bool, ProfileError> {
    Ok(rows
        .group(id)?
        .is_none_or(|group| group.standing == Standing::Member && group.members.contains(&account)))
}

fn take_key(rows: Rows<'_>, sender: Address, key: &Bytes) -> Result<(), ProfileError> {
    // One that cannot be read is missed when a message needs it.
    let Ok(message) = SenderKeyDistributionMessage::decode(key) else { return Ok(()) };
    let mut record = rows.sender_key(sender, message.distribution_id())?;
    record.process(&message);
    rows.save_sender_key(sender, message.distribution_id(), &record)
}

/// A member changes the group: the higher revision holds, and of two with the same number the one whose
/// digest is larger, so that all come to the same.
fn take_change(
    rows: Rows<'_>,
    sender: Address,
    id: GroupId,
    revision: u32,
    change: GroupChange,
) -> Result<Option<Event>, ProfileError> {
    let us = rows.own_account()?;
    let account = sender.service_id;
    let known = rows.group(id)?;
    let group = match (change, known) {
        (GroupChange::State { name, members }, None) => {
            // Who makes a group is in it.
            if !members.contains(&account) || !members.contains(&us) {
                return Ok(None);
            }
            Group { id, name, revision, standing: Standing::Member, members }
        }
        (GroupChange::State { name, members }, Some(known)) => {
            let standing = if members.contains(&us) { Standing::Member } else { Standing::Former };
            let new = Group { id, name, revision, standing, members };
            // Those who were members when we left may not be any more.
            let takes_us_back = known.standing == Standing::Former
                && [account, us].iter().all(|it| new.members.contains(it));
            let may = known.members.contains(&account) || takes_us_back;
            if !may || rank(&new) <= rank(&known) {
                return Ok(None);
            }
            new
        }
        (GroupChange::Left, Some(known)) => {
            if !known.members.contains(&account) {
                return Ok(None);
            }
            let members = known.members.iter().filter(|it| **it != account).copied().collect();
            // Another device of ours speaks for us.
            let standing = if account == us { Standing::Former } else { known.standing };
            Group { members, standing, ..known }
        }
        _ => return Ok(None),
    };
    for member in &group.members {
        if rows.peer(*member)?.is_none() && *member != us {
            rows.save_peer(&Peer::unknown(*member))?;
        }
    }
    rows.save_group(&group)?;
    Ok(Some(Event::GroupChanged { group: id }))
}

fn rank(group: &Group) -> (u32, [u8; 32]) {
    let mut members: Vec<_> = group.members.iter().map(|member| *member.uuid()).collect();
    members.sort_unstable();
    let hash = Sha256::new().chain_update(&group.name).chain_update(members.concat());
    (group.revision, hash.finalize().into())
}
