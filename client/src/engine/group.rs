//! Groups. A message is encrypted once, with a key of our own that the members got through their sessions,
//! and goes to all of them in one upload; who cannot be reached by it gets a message of their own. The relay
//! is told of no group. A change of the members changes the key: [`Rows::save_group`] sees to it.

use bytes::Bytes;
use tuckseal::content::{Body, Content, Data, GroupChange, GroupContext};
use tuckseal::{Address, SenderKey, ServiceId};

use super::recovery::digest;
use super::reports::token_for;
use super::send::profile_of;
use super::{Engine, Turn, devices};
use crate::error::{GroupError, SendError};
use crate::message::{GroupId, SentId};
use crate::store::{
    Form, Group, LogKey, NewGroupMessage, Own, ProfileError, Reached, Rows, Standing,
};

/// Most members, ourselves included.
pub(crate) const MAX_MEMBERS: usize = 1000;
/// Longest name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 1024;

/// What is to be another way in a group.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Name(String),
    Add(Vec<ServiceId>),
    Remove(Vec<ServiceId>),
}

impl Engine {
    /// Makes a group with us in it and tells its members.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub(crate) fn create_group(
        &mut self,
        name: &str,
        others: &[ServiceId],
        turn: &mut Turn<'_>,
    ) -> Result<GroupId, GroupError> {
        let own = self.local.address.service_id;
        let group = Group {
            id: GroupId(turn.random()),
            name: name.into(),
            revision: 0,
            standing: Standing::Member,
            members: with(vec![own], others),
        };
        self.announce(&group, &[], turn)?;
        Ok(group.id)
    }

    /// Changes a group and tells its members, and those who were.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub(crate) fn change_group(
        &mut self,
        id: GroupId,
        change: &Change,
        turn: &mut Turn<'_>,
    ) -> Result<(), GroupError> {
        let group = self.own_group(id)?.ok_or(GroupError::NotAMember)?;
        let before = group.members.clone();
        let own = self.local.address.service_id;
        let revision = group.revision.saturating_add(1);
        let group = Group { revision, ..group };
        let group = match change {
            Change::Name(name) => Group { name: name.clone(), ..group },
            Change::Add(accounts) => Group { members: with(group.members, accounts), ..group },
            Change::Remove(accounts) if accounts.contains(&own) => {
                return Err(GroupError::Ourselves);
            }
            Change::Remove(accounts) => {
                let stays = |member: &ServiceId| !accounts.contains(member);
                let members = group.members.into_iter().filter(stays).collect();
                Group { members, ..group }
            }
        };
        self.announce(&group, &before, turn)
    }

    pub(super) fn own_group(&self, id: GroupId) -> Result<Option<Group>, ProfileError> {
        Ok(self.store.rows().group(id)?.filter(|group| group.standing == Standing::Member))
    }

    fn announce(
        &mut self,
        group: &Group,
        before: &[ServiceId],
        turn: &mut Turn<'_>,
    ) -> Result<(), GroupError> {
        if group.members.len() > MAX_MEMBERS {
            return Err(GroupError::TooMany { limit: MAX_MEMBERS });
        }
        if group.name.len() > MAX_NAME_BYTES {
            return Err(GroupError::NameTooLong { limit: MAX_NAME_BYTES });
        }
        let (own, us) = (&self.own, self.local.address.service_id);
        let everybody = with(group.members.clone(), before);
        self.store.commit(|rows| {
            rows.save_group(group)?;
            rows.answer_inviter(group.id)?;
            let key = SenderKey::generate(group.id.0, &mut turn.rng);
            rows.save_group_key(group.id, &key)?;
            let change =
                GroupChange::State { name: group.name.clone(), members: group.members.clone() };
            for account in everybody.iter().filter(|account| **account != us) {
                let is_member = group.members.contains(account);
                let sender_key = is_member.then(|| key.distribution_message().encode().to_vec());
                let content = Content {
                    sender_key: sender_key.map(Bytes::from),
                    report_token: token_for(rows, *account, turn.now)?,
                    ..notice(rows, own, group, Some(change.clone()), turn)?
                };
                rows.put_out(*account, Form::Notice, &content)?;
                rows.mark_told(group.id, *account)?;
            }
            rows.mark_told(group.id, us)?;
            devices::tell_change(rows, us, group, change, turn)
        })?;
        self.pump_members(&everybody, turn);
        self.refill_report_tokens(turn);
        Ok(())
    }

    /// Leaves a group and tells the others, who go on without us.
    ///
    /// # Errors
    /// [`GroupError`]; nothing was changed.
    pub(crate) fn leave_group(
        &mut self,
        id: GroupId,
        turn: &mut Turn<'_>,
    ) -> Result<(), GroupError> {
        let group = self.own_group(id)?.ok_or(GroupError::NotAMember)?;
        let (own, us) = (&self.own, self.local.address.service_id);
        let others: Vec<_> = group.members.iter().filter(|it| **it != us).copied().collect();
        self.store.commit(|rows| {
            let left =
                Group { standing: Standing::Former, members: others.clone(), ..group.clone() };
            rows.save_group(&left)?;
            rows.answer_inviter(id)?;
            for account in &others {
                let content = notice(rows, own, &group, Some(GroupChange::Left), turn)?;
                rows.put_out(*account, Form::Notice, &content)?;
            }
            devices::tell_change(rows, us, &group, GroupChange::Left, turn)
        })?;
        self.pump_members(&group.members, turn);
        Ok(())
    }

    /// Takes a message to a group over: when this returns it is encrypted, on disk, and will be sent.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub(crate) fn send_to_group(
        &mut self,
        id: GroupId,
        data: Data,
        turn: &mut Turn<'_>,
    ) -> Result<SentId, SendError> {
        super::send::check(&data)?;
        let group = self.own_group(id)?.ok_or(SendError::NotAMember)?;
        let (own, us) = (&self.own, self.local.address.service_id);
        let sent = self.store.commit(|rows| {
            rows.answer_inviter(id)?;
            let mut key = match rows.group_key(id)? {
                Some(key) if key.iteration() < u32::MAX => key,
                _ => {
                    rows.save_group(&group)?;
                    rows.mark_told(id, us)?;
                    SenderKey::generate(id.0, &mut turn.rng)
                }
            };
            for account in rows.untold(id)?.iter().filter(|account| **account != us) {
                hand_out(rows, own, id, *account, &key, turn)?;
            }
            let context = GroupContext { id: id.0, revision: group.revision, change: None };
            let data = Data { group: Some(context), ..data };
            let timestamp = rows.timestamp(turn.now)?;
            devices::tell_sent(rows, us, None, timestamp, &data, turn)?;
            let content = Content {
                profile: Some(profile_of(own)),
                ..Content::new(Body::Data(data), timestamp)
            };
            let body = key
                .encrypt(&content.encode_padded(), &mut turn.rng)
                .map_err(|_| ProfileError::Damaged { what: "group key" })?;
            rows.save_group_key(id, &key)?;
            let message = NewGroupMessage {
                submission_id: turn.random(),
                timestamp_ms: content.timestamp.as_millis(),
                content: &content.encode(),
                digest: digest(&body),
                body: &body,
            };
            let recipients: Vec<_> =
                group.members.iter().filter(|it| **it != us).copied().collect();
            rows.insert_group_message(id, &message, &recipients)
        })?;
        self.pump_members(&group.members, turn);
        Ok(SentId(sent))
    }

    fn pump_members(&mut self, members: &[ServiceId], turn: &mut Turn<'_>) {
        for member in members {
            self.pump_stored(*member, turn);
        }
        if let Err(error) = self.pump_groups(turn) {
            // As in `pump_stored`: the next input finds it again.
            tracing::warn!(%error, "outbox");
        }
    }
}

fn with(mut members: Vec<ServiceId>, others: &[ServiceId]) -> Vec<ServiceId> {
    for other in others {
        if !members.contains(other) {
            members.push(*other);
        }
    }
    members
}

fn notice(
    rows: Rows<'_>,
    own: &Own,
    group: &Group,
    change: Option<GroupChange>,
    turn: &Turn<'_>,
) -> Result<Content, ProfileError> {
    let context = GroupContext { id: group.id.0, revision: group.revision, change };
    let data = Data { group: Some(context), ..Data::default() };
    Ok(Content {
        profile: Some(profile_of(own)),
        ..Content::new(Body::Data(data), rows.timestamp(turn.now)?)
    })
}

/// Sends our key for a group to one member, in their session.
fn hand_out(
    rows: Rows<'_>,
    own: &Own,
    group: GroupId,
    account: ServiceId,
    key: &SenderKey,
    turn: &Turn<'_>,
) -> Result<(), ProfileError> {
    let content = key_for(rows, own, account, key, turn)?;
    rows.put_out(account, Form::Notice, &content)?;
    rows.mark_told(group, account)
}

fn key_for(
    rows: Rows<'_>,
    own: &Own,
    account: ServiceId,
    key: &SenderKey,
    turn: &Turn<'_>,
) -> Result<Content, ProfileError> {
    Ok(Content {
        profile: Some(profile_of(own)),
        sender_key: Some(key.distribution_message().encode().to_vec().into()),
        report_token: token_for(rows, account, turn.now)?,
        ..Content::new(Body::Nothing, rows.timestamp(turn.now)?)
    })
}

/// A device could not read a group message: it gets it once in its session, with our key, if its account is in the group
/// still. The others of the account have read it.
pub(super) fn answer(
    rows: Rows<'_>,
    own: &Own,
    log_key: &LogKey,
    device: Address,
    failed: &[crate::store::Digest],
    turn: &Turn<'_>,
) -> Result<u64, ProfileError> {
    let (account, to) = (device.service_id, Some(device.device_id));
    let mut messages = 0;
    for digest in failed {
        let Some((id, group)) = rows.group_message_of(digest)? else { continue };
        let is_member = rows
            .group(group)?
            .is_some_and(|it| it.standing == Standing::Member && it.members.contains(&account));
        let was_uploaded = rows.reached(id, account)?.is_some_and(|it| it != Reached::Alone);
        let content = rows.logged_content(log_key, id)?;
        if let (true, true, Some(content)) = (is_member, was_uploaded, content)
            && rows.answer_once(id, device)?
        {
            if let Some(key) = rows.group_key(group)? {
                let key = key_for(rows, own, account, &key, turn)?;
                rows.insert_outbox(account, to, Form::Notice, &key.encode())?;
            }
            rows.insert_outbox(account, to, Form::Notice, &content)?;
            messages += 1;
        }
    }
    Ok(messages)
}
