//! The upload of a group message: one for all members that it can reach, once what they need before it has left; the
//! others get a message of their own.

use bytes::Bytes;
use prost::Message as _;
use tuckseal::service::{MultiAccepted, MultiSubmission, RecipientAccess, RecipientRefusal};
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
                self.store.commit(|rows| {
                    take_refusals(rows, id, &waiting.content, &accepted.refused, turn)
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

/// For these the relay has not taken it: they get a message of their own. Only those of this upload who are yet to be
/// reached can be among them, each once. Whoever else the relay names gets nothing to read by that.
fn take_refusals(
    rows: Rows<'_>,
    message: u64,
    content: &[u8],
    refused: &[RecipientRefusal],
    turn: &mut Turn<'_>,
) -> Result<(), ProfileError> {
    let mut pending = rows.recipients(message)?;
    for refusal in refused {
        let named = pending.iter().position(|account| account.uuid()[..] == refusal.account[..]);
        let Some(account) = named.map(|at| pending.swap_remove(at)) else { continue };
        match &refusal.devices {
            Some(devices) => apply_mismatch(rows, account, message, devices, turn)?,
            None => forget_access_key(rows, account)?,
        }
        send_alone(rows, message, content, &[account])?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Input, group::Change};
    use crate::stage::{Person, Relay, database};
    use tuckseal::service::DeviceMismatch;

    /// A group message is on its way when one of its members is removed, and the relay refuses it for whomever it likes.
    #[tokio::test(flavor = "multi_thread")]
    async fn whom_the_relay_names_gets_a_group_message_only_if_it_was_for_them_and_then_once() {
        let relay = Relay::start().await;
        let mut people = Vec::new();
        for name in ["alice", "bob", "carol", "eve"] {
            people.push(Person::register(&relay, name).await);
        }
        let [alice, bob, carol, eve] = &people[..] else { panic!() };
        let [bob, carol] = [bob.client.account(), carol.client.account()];
        let running = alice.spawn();
        alice.send(eve, "hello").await;
        let group = alice.client.create_group("three", &[bob, carol]).await.unwrap();
        alice.sent().await;
        alice.client.send_to_group(group, "before").await.unwrap();
        alice.sent().await;
        running.stop().await;

        let connected =
            |engine: &mut Engine, turn: &mut Turn<'_>| engine.handle(Input::Connected, turn);
        alice.client.shell.call(connected).await.unwrap();
        alice.client.send_to_group(group, "among us").await.unwrap();
        let profile = database(alice.folder.path());
        let sql = "SELECT content FROM outbox WHERE form = 4 ORDER BY id DESC LIMIT 1";
        let content: Vec<u8> = profile.query_row(sql, (), |row| row.get(0)).unwrap();

        let refusal = |account: ServiceId, devices| RecipientRefusal {
            account: Bytes::copy_from_slice(account.uuid()),
            devices,
        };
        let (nobody, other_devices) = (ServiceId::aci([9; 16]), Some(DeviceMismatch::default()));
        let refused = vec![
            refusal(eve.client.account(), None),
            refusal(nobody, None),
            refusal(carol, None),
            refusal(alice.client.account(), None),
            refusal(bob, other_devices),
            refusal(bob, None),
        ];
        let answer = move |engine: &mut Engine, turn: &mut Turn<'_>| {
            let ticket = engine.group_flight.as_ref().unwrap().ticket;
            engine.change_group(group, &Change::Remove(vec![carol]), turn).unwrap();
            let result = Ok(MultiAccepted { refused });
            engine.handle(Input::MultiSubmitted { ticket, result }, turn)
        };
        alice.client.shell.call(answer).await.unwrap();
        let sql = "SELECT account FROM outbox WHERE content = ?1";
        let mut statement = profile.prepare(sql).unwrap();
        let account = |row: &rusqlite::Row<'_>| Ok(ServiceId::aci(row.get(0)?));
        let alone = statement.query_map((content,), account).unwrap();
        assert_eq!(alone.collect::<Result<Vec<_>, _>>().unwrap(), [bob]);
    }
}
