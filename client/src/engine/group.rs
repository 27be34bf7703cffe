//! Groups. A message is encrypted once, with a key of our own that the members got through their sessions,
//! and goes to all of them in one upload; who cannot be reached by it gets a message of their own. The relay
//! is told of no group. A change of the members changes the key: [`Rows::save_group`] sees to it.

use bytes::Bytes;
use prost::Message as _;
use tuckseal::content::{Body, Content, Data, GroupChange, GroupContext};
use tuckseal::service::{MultiAccepted, MultiSubmission, RecipientAccess};
use tuckseal::{
    ContentHint, ContentKind, RecipientDevice, SealedContent, SealedRecipient, SenderCertificate,
    SenderKey, ServiceId, Timestamp, seal_v2_multi,
};

use super::recovery::digest;
use super::send::{apply_mismatch, profile_of};
use super::settings::later;
use super::{Action, Engine, Link, Turn};
use crate::backoff;
use crate::error::{GroupError, SendError};
use crate::event::Event;
use crate::message::{GroupId, SentId};
use crate::store::{
    Decision, Form, Group, GroupMessage, LogKey, NewGroupMessage, Own, ProfileError, Reached, Rows,
    SentBy, Standing,
};
use crate::transport::ServerError;

/// Most members, ourselves included.
pub(crate) const MAX_MEMBERS: usize = 1000;
/// Longest name, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 1024;
/// Failures in a row after which nobody waits for a member any more.
const ATTEMPTS_WAITED_FOR: u32 = 3;

/// The upload for many that is on its way, or waits to be.
#[derive(Debug)]
pub(super) struct GroupFlight {
    message: u64,
    ticket: u64,
    body: Bytes,
    by: SentBy,
    attempt: u32,
    /// `None`: it is on its way.
    pub(super) retry_at: Option<Timestamp>,
}

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
            let key = SenderKey::generate(group.id.0, &mut turn.rng);
            rows.save_group_key(group.id, &key)?;
            let change =
                GroupChange::State { name: group.name.clone(), members: group.members.clone() };
            for account in everybody.iter().filter(|account| **account != us) {
                let is_member = group.members.contains(account);
                let sender_key = is_member.then(|| key.distribution_message().encode().to_vec());
                let content = Content {
                    sender_key: sender_key.map(Bytes::from),
                    ..notice(rows, own, group, Some(change.clone()), turn)?
                };
                rows.put_out(*account, Form::Notice, &content)?;
                rows.mark_told(group.id, *account)?;
            }
            rows.mark_told(group.id, us)
        })?;
        self.pump_members(&everybody, turn);
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
            for account in &others {
                let content = notice(rows, own, &group, Some(GroupChange::Left), turn)?;
                rows.put_out(*account, Form::Notice, &content)?;
            }
            Ok::<_, ProfileError>(())
        })?;
        self.pump_members(&others, turn);
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
            let content = Content {
                profile: Some(profile_of(own)),
                ..Content::new(Body::Data(data), rows.timestamp(turn.now)?)
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

    /// Brings the oldest group message on its way, once what its members need before it has left.
    pub(super) fn pump_groups(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.link == Link::Down || self.group_flight.is_some() {
            return Ok(());
        }
        let Some(message) = self.store.rows().first_group_message()? else { return Ok(()) };
        let Some(certificate) = self.usable_certificate(turn) else { return Ok(()) };
        let (mut ready, mut access, mut alone) = (Vec::new(), Vec::new(), Vec::new());
        for account in self.store.rows().recipients(message.waiting.id)? {
            match self.readiness(account, message.waiting.id, turn)? {
                Readiness::Ready(recipient, key) => {
                    ready.push(recipient);
                    access.push(key);
                }
                Readiness::Later => return Ok(()),
                Readiness::Never => alone.push(account),
            }
        }
        let sealed = self.seal_for_many(&certificate, &message, &ready, turn);
        if sealed.is_none() {
            alone.extend(ready.iter().map(|recipient| recipient.service_id));
            access.clear();
        }
        let id = message.waiting.id;
        let content = &message.waiting.content;
        self.store.commit(|rows| send_alone(rows, id, content, &alone))?;
        let Some(sent) = sealed.filter(|_| !ready.is_empty()) else {
            self.group_sent(id, None, turn)?;
            return self.pump_all(turn);
        };
        let by = if access.iter().all(Option::is_some) { SentBy::AccessKey } else { SentBy::Token };
        let access = match by {
            SentBy::Token => Vec::new(),
            SentBy::AccessKey => ready.iter().zip(access).filter_map(show).collect(),
        };
        let submission_id = Bytes::copy_from_slice(&message.submission_id);
        let body: Bytes =
            MultiSubmission { submission_id, sent: sent.into(), access, background: false }
                .encode_to_vec()
                .into();
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        turn.actions.push(Action::SubmitMulti { ticket, body: body.clone(), by });
        let flight = GroupFlight { message: id, ticket, body, by, attempt: 0, retry_at: None };
        self.group_flight = Some(flight);
        for account in alone {
            self.pump(account, turn)?;
        }
        Ok(())
    }

    fn readiness(
        &mut self,
        account: ServiceId,
        message: u64,
        turn: &mut Turn<'_>,
    ) -> Result<Readiness, ProfileError> {
        let Some(peer) = self.store.rows().peer(account)? else { return Ok(Readiness::Never) };
        if peer.decision != Decision::None {
            return Ok(Readiness::Never);
        }
        if self.store.rows().waits_before(account, message)? {
            self.pump(account, turn)?;
            let gives_up = |flight: &super::Flight| flight.attempt >= ATTEMPTS_WAITED_FOR;
            let is_waited_for = !self.flights.get(&account).is_some_and(gives_up);
            return Ok(if is_waited_for { Readiness::Later } else { Readiness::Never });
        }
        let devices = self.store.rows().devices(account)?;
        let usable = devices.iter().all(|device| device.session.can_encrypt(turn.now));
        let (Some(identity), true, false) = (peer.identity, usable, devices.is_empty()) else {
            return Ok(Readiness::Never);
        };
        let devices = devices.iter().map(|device| RecipientDevice {
            device_id: device.address.device_id,
            registration_id: device.registration_id,
        });
        let devices = devices.collect();
        let recipient = SealedRecipient { service_id: account, identity, devices };
        Ok(Readiness::Ready(recipient, peer.access_key))
    }

    fn seal_for_many(
        &self,
        certificate: &SenderCertificate,
        message: &GroupMessage,
        recipients: &[SealedRecipient],
        turn: &mut Turn<'_>,
    ) -> Option<Vec<u8>> {
        let content = SealedContent {
            kind: ContentKind::SenderKey,
            sender: certificate.clone(),
            content: Bytes::copy_from_slice(&message.body),
            hint: ContentHint::Resendable,
            group_id: Some(Bytes::copy_from_slice(&message.group.0)),
        };
        seal_v2_multi(&content, &self.local.identity, recipients, &[], &mut turn.rng).ok()
    }

    pub(super) fn multi_submitted(
        &mut self,
        ticket: u64,
        result: Result<MultiAccepted, ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let Some(flight) = self.group_flight.take_if(|flight| flight.ticket == ticket) else {
            return Ok(());
        };
        let id = flight.message;
        match result {
            Ok(accepted) => {
                let Some(waiting) = self.store.rows().waiting(id)? else { return Ok(()) };
                let mut alone = Vec::new();
                self.store.commit(|rows| {
                    for refusal in &accepted.refused {
                        let Ok(account) = refusal.account[..].try_into().map(ServiceId::aci) else {
                            continue;
                        };
                        match &refusal.devices {
                            Some(devices) => apply_mismatch(rows, account, id, devices)?,
                            None => forget_access_key(rows, account)?,
                        }
                        alone.push(account);
                    }
                    send_alone(rows, id, &waiting.content, &alone)
                })?;
                self.group_sent(id, Some(flight.by), turn)?;
            }
            Err(ServerError::Refused { .. }) => {
                // Too large for this server, perhaps: each gets one of their own.
                let Some(waiting) = self.store.rows().waiting(id)? else { return Ok(()) };
                let alone = self.store.rows().recipients(id)?;
                self.store.commit(|rows| send_alone(rows, id, &waiting.content, &alone))?;
                self.group_sent(id, None, turn)?;
            }
            Err(error) => {
                let wait = backoff::delay(flight.attempt, &mut turn.rng);
                let retry_at = later(turn.now, wait.max(error.retry_after()));
                let attempt = flight.attempt.saturating_add(1);
                self.group_flight =
                    Some(GroupFlight { attempt, retry_at: Some(retry_at), ..flight });
                return Ok(());
            }
        }
        self.pump_all(turn)
    }

    /// Whoever the upload was for has it; the message goes into the log.
    fn group_sent(
        &mut self,
        id: u64,
        by: Option<SentBy>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let key = self.store.log_key();
        self.store.commit(|rows| {
            let Some(waiting) = rows.waiting(id)? else { return Ok(()) };
            for account in rows.recipients(id)? {
                rows.set_reached(id, account, Reached::Together)?;
            }
            if let Some(by) = by {
                rows.count_sent(by)?;
            }
            rows.log(&key, &waiting, turn.now, turn.rng)
        })?;
        turn.tell(Event::Accepted { message: SentId(id) });
        self.tell_if_empty(turn)
    }

    /// Tries the upload again when its time has come, or at once after `until`.
    pub(super) fn retry_group(&mut self, turn: &mut Turn<'_>, until: Timestamp) {
        let due = |flight: &&mut GroupFlight| flight.retry_at.is_some_and(|at| at <= until);
        if let Some(flight) = self.group_flight.as_mut().filter(due) {
            flight.retry_at = None;
            let GroupFlight { ticket, by, .. } = *flight;
            turn.actions.push(Action::SubmitMulti { ticket, body: flight.body.clone(), by });
        }
    }
}

/// Whether the upload for many can be for a member.
enum Readiness {
    Ready(SealedRecipient, Option<[u8; 16]>),
    /// What they need before it is on its way.
    Later,
    /// It is not to be waited for.
    Never,
}

fn show((recipient, key): (&SealedRecipient, Option<[u8; 16]>)) -> Option<RecipientAccess> {
    Some(RecipientAccess {
        account: Bytes::copy_from_slice(recipient.service_id.uuid()),
        access_key: Bytes::copy_from_slice(&key?),
    })
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
    let content = Content {
        profile: Some(profile_of(own)),
        sender_key: Some(key.distribution_message().encode().to_vec().into()),
        ..Content::new(Body::Nothing, rows.timestamp(turn.now)?)
    };
    rows.put_out(account, Form::Notice, &content)?;
    rows.mark_told(group, account)
}

/// Gives some members a message of their own instead.
fn send_alone(
    rows: Rows<'_>,
    message: u64,
    content: &[u8],
    accounts: &[ServiceId],
) -> Result<(), ProfileError> {
    for account in accounts {
        rows.insert_outbox(*account, None, Form::Notice, content)?;
        rows.set_reached(message, *account, Reached::Alone)?;
    }
    Ok(())
}

fn forget_access_key(rows: Rows<'_>, account: ServiceId) -> Result<(), ProfileError> {
    let Some(peer) = rows.peer(account)? else { return Ok(()) };
    rows.save_peer(&crate::store::Peer { access_key: None, ..peer })
}

/// Somebody could not read a group message: they get it once in their session, with our key, if they are
/// in the group still.
pub(super) fn answer(
    rows: Rows<'_>,
    own: &Own,
    log_key: &LogKey,
    account: ServiceId,
    failed: &[crate::store::Digest],
    turn: &Turn<'_>,
) -> Result<u64, ProfileError> {
    let mut messages = 0;
    for digest in failed {
        let Some((id, group)) = rows.group_message_of(digest)? else { continue };
        let is_member = rows
            .group(group)?
            .is_some_and(|it| it.standing == Standing::Member && it.members.contains(&account));
        let once = rows.reached(id, account)?.is_some_and(|it| it != Reached::Alone);
        let content = rows.logged_content(log_key, id)?;
        if let (true, true, Some(content)) = (is_member, once, content) {
            if let Some(key) = rows.group_key(group)? {
                hand_out(rows, own, group, account, &key, turn)?;
            }
            send_alone(rows, id, &content, &[account])?;
            messages += 1;
        }
    }
    Ok(messages)
}
