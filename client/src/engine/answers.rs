//! What the server answers to a submission and to a request for bundles, and what follows from it.

use std::time::Duration;

use tuckseal::service::Bundles;
use tuckseal::{IdentityKey, ServiceId};

use super::bundle::{Beginning, Offer, begin_sessions, read_bundles};
use super::encrypt::{apply_mismatch, encrypt_waiting};
use super::flight::Stage;
use super::{Engine, Turn, devices};
use crate::event::{Event, Failure, Refused};
use crate::message::SentId;
use crate::store::{Decision, Form, Peer, ProfileError};
use crate::transport::{ServerError, SubmitError};

/// After so many device mismatches in a row an account is tried again more slowly.
const MISMATCHES_AT_ONCE: u32 = 3;

impl Engine {
    pub(super) fn submitted(
        &mut self,
        account: ServiceId,
        ticket: u64,
        result: Result<(), SubmitError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let Some(flight) = self.answered(account, ticket) else { return Ok(()) };
        let Stage::Submission { message, submission_id, .. } = flight.stage else { return Ok(()) };
        let authority = flight.authority;
        match result {
            Ok(()) => {
                let key = self.store.log_key();
                let is_news = self.store.commit(|rows| {
                    let Some(sent) = rows.waiting(message)? else { return Ok(false) };
                    if sent.submission_id != Some(submission_id) {
                        // A device has asked for it again before the relay's answer came.
                        return Ok(false);
                    }
                    if !sent.form.is_numbered() {
                        rows.delete_outbox(message)?;
                        return Ok(false);
                    }
                    rows.log(&key, &sent, turn.now, turn.rng)?;
                    let is_news = sent.form == Form::Numbered && sent.resent == 0;
                    if is_news {
                        rows.count_sent(authority.into())?;
                    }
                    Ok::<_, ProfileError>(is_news)
                })?;
                self.mismatches.remove(&account);
                if is_news {
                    turn.tell(Event::Accepted { message: SentId(message) });
                }
                self.landed(account, turn)
            }
            Err(SubmitError::Devices(mut mismatch)) => {
                let is_ours = account == self.us();
                if is_ours {
                    // Nobody sends to the very device that sends.
                    let this = u32::from(self.local.address.device_id.get());
                    mismatch.missing.retain(|device| *device != this);
                }
                let local = &self.local;
                self.store.commit(|rows| {
                    if is_ours {
                        devices::heard(rows, local, &mismatch, turn)?;
                    }
                    apply_mismatch(rows, account, message, &mismatch, turn)
                })?;
                let count = self.mismatches.entry(account).or_default();
                *count += 1;
                match count.checked_sub(MISMATCHES_AT_ONCE + 1) {
                    Some(attempt) => self.pause(account, attempt, turn),
                    None => self.landed(account, turn),
                }
            }
            Err(SubmitError::Server(error)) => {
                let again = error == ServerError::Unauthorised;
                let waiting = self.store.rows().waiting(message)?;
                if !again && waiting.is_some_and(|waiting| waiting.form == Form::Passing) {
                    // The moment has passed.
                    self.store.commit(|rows| rows.delete_outbox(message))?;
                    return self.landed(account, turn);
                }
                self.request_failed(account, Some(message), &error, turn)
            }
        }
    }

    /// A request for an account, of the submission of `message` or for bundles, was not answered with what
    /// was asked for.
    fn request_failed(
        &mut self,
        account: ServiceId,
        message: Option<u64>,
        error: &ServerError,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let peer = self.store.rows().peer(account)?;
        match (error, peer) {
            (ServerError::Unauthorised, Some(peer @ Peer { access_key: Some(_), .. })) => {
                // It was changed. We show who we are instead, and learn the new one from the next answer.
                self.store.commit(|rows| rows.save_peer(&Peer { access_key: None, ..peer }))?;
                self.relaunch(account, turn)
            }
            (ServerError::NotFound, _) => self.give_up_all(account, Refused::NoSuchAccount, turn),
            (ServerError::Refused { status }, _) => {
                self.refused(account, message, Refused::ByServer { status: *status }, turn)
            }
            (ServerError::ByOperator { reason }, _) => {
                self.refused(account, message, Refused::ByOperator { reason: reason.clone() }, turn)
            }
            _ => self.put_off(account, error.retry_after(), turn),
        }
    }

    /// The one message, or all that cannot go without what was asked for.
    fn refused(
        &mut self,
        account: ServiceId,
        message: Option<u64>,
        reason: Refused,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        match message {
            Some(message) => self.give_up(account, message, reason, turn),
            None => self.give_up_all(account, reason, turn),
        }
    }

    pub(super) fn give_up(
        &mut self,
        account: ServiceId,
        message: u64,
        reason: Refused,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.store.commit(|rows| rows.mark_refused(message))? {
            turn.tell(Event::Refused { message: SentId(message), reason });
        }
        self.landed(account, turn)
    }

    fn give_up_all(
        &mut self,
        account: ServiceId,
        reason: Refused,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        for message in self.store.commit(|rows| rows.refuse_all(account))? {
            turn.tell(Event::Refused { message: SentId(message), reason: reason.clone() });
        }
        self.landed(account, turn)
    }

    pub(super) fn bundles(
        &mut self,
        account: ServiceId,
        ticket: u64,
        result: Result<Bundles, ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.answered(account, ticket).is_none() {
            return Ok(());
        }
        let bundles = match result {
            Ok(bundles) => bundles,
            Err(error) => return self.request_failed(account, None, &error, turn),
        };
        let Some(mut offer) = read_bundles(&bundles) else { return self.bad_bundle(account, turn) };
        if account == self.us() {
            // A server that shows another key for us lies.
            if offer.identity != self.local.identity.identity_key() {
                return self.bad_bundle(account, turn);
            }
            let others = offer.without(self.local.address.device_id);
            if others.is_empty() {
                return self.alone(turn);
            }
            self.reconcile(&others, turn)?;
        }
        let peer = self.store.rows().peer(account)?.unwrap_or(Peer::unknown(account));
        match peer.identity {
            Some(known) if known != offer.identity => {
                self.other_identity(&peer, known, offer.identity, turn)
            }
            _ => self.begin_sessions(peer, &offer, turn),
        }
    }

    fn other_identity(
        &mut self,
        peer: &Peer,
        known: IdentityKey,
        offered: IdentityKey,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if peer.offered == Some(offered) && peer.decision == Decision::Rejected {
            return self.give_up_all(peer.account, Refused::IdentityRejected, turn);
        }
        let mut changed = peer.clone();
        if super::identity::offer(&mut changed, offered) {
            self.store.commit(|rows| rows.save_peer(&changed))?;
            let (account, was_verified) = (peer.account, peer.verified);
            turn.tell(Event::IdentityChanged { account, known, offered, was_verified });
        }
        self.landed(peer.account, turn)
    }

    fn begin_sessions(
        &mut self,
        peer: Peer,
        offer: &Offer,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let account = peer.account;
        let local = &self.local;
        let begun = self.store.commit(|rows| {
            begin_sessions(rows, local, &peer, offer, turn)?;
            encrypt_waiting(rows, local, account, turn).map_err(Beginning::Profile)
        });
        match begun {
            Ok(_) => self.landed(account, turn),
            Err(Beginning::Bundle) => self.bad_bundle(account, turn),
            Err(Beginning::Profile(error)) => Err(error),
        }
    }

    /// The server shows keys that cannot be used: counted and told; tried again later, and ever more slowly.
    fn bad_bundle(&mut self, account: ServiceId, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        self.store
            .commit(|rows| super::receive::count(rows, Some(account), Failure::Bundle, turn))?;
        let request_id = turn.random();
        if let Some(flight) = self.flights.get_mut(&account) {
            flight.stage = Stage::Bundles { request_id };
        }
        self.put_off(account, Duration::from_secs(1), turn)
    }
}
