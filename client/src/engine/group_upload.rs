//! The upload of a group message: one for all members that it can reach, once what they need before it has left; the
//! others get a message of their own.

use bytes::Bytes;
use prost::Message as _;
use tuckseal::service::{MultiAccepted, MultiSubmission, RecipientAccess};
use tuckseal::{
    ContentHint, ContentKind, RecipientDevice, SealedContent, SealedRecipient, SenderCertificate,
    SentMessage, ServiceId, Timestamp, seal_v2_multi,
};

use super::encrypt::apply_mismatch;
use super::flight::is_due;
use super::settings::later;
use super::{Action, Engine, Link, Turn};
use crate::backoff;
use crate::event::Event;
use crate::message::SentId;
use crate::store::{Decision, Form, GroupMessage, ProfileError, Reached, Rows, SentBy};
use crate::transport::ServerError;

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

impl Engine {
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
        let body: Bytes = MultiSubmission {
            submission_id,
            sent: sent.into(),
            access,
            ..MultiSubmission::default()
        }
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
        let mut sent =
            seal_v2_multi(&content, &self.local.identity, recipients, &[], &mut turn.rng).ok()?;
        SentMessage::pad(&mut sent).ok()?;
        Some(sent)
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
                            Some(devices) => apply_mismatch(rows, account, id, devices, turn)?,
                            None => forget_access_key(rows, account)?,
                        }
                        alone.push(account);
                    }
                    send_alone(rows, id, &waiting.content, &alone)
                })?;
                self.group_sent(id, Some(flight.by), turn)?;
            }
            Err(ServerError::Refused { .. } | ServerError::ByOperator { .. }) => {
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
        let due = |flight: &&mut GroupFlight| flight.retry_at.is_some_and(|at| is_due(at, until));
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

/// Gives some members a message of their own instead.
pub(super) fn send_alone(
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
