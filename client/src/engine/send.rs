//! Out: a message is encrypted and stored in one commit, then submitted until the server has it.
//!
//! The session's ciphertext is made once and kept. The sealed envelope around it is made when the message
//! goes out, with a certificate that is valid then; tries of one run repeat the same bytes.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tuckseal::content::{Body, Content, Data, Profile};
use tuckseal::service::{Bundles, DeviceMessage, DeviceMismatch, Submission};
use tuckseal::{
    Address, ContentHint, ContentKind, DeviceId, IdentityKey, LocalParty, MessageKind,
    SealedContent, SenderCertificate, ServiceId, Timestamp, Trust, seal_v1,
};

use super::bundle::{Beginning, Offer, begin_sessions, read_bundles};
use super::flight::{Flight, Stage};
use super::recovery::digest;
use super::{Action, Authority, Engine, Link, Turn};
use crate::error::SendError;
use crate::event::{Event, Failure, Refused};
use crate::message::{SentId, SentState};
use crate::store::{
    Ciphertext, Decision, Device, Form, Own, Peer, ProfileError, Progress, Rows, Waiting,
};
use crate::transport::{ServerError, SubmitError};

/// Longest text, in bytes of UTF-8: sealed and padded it fits what servers take.
pub(crate) const MAX_TEXT_BYTES: usize = 80 * 1024;
/// What may stand beside it, in bytes: files, a place.
const MAX_BESIDE_BYTES: usize = 8 * 1024;
/// After so many device mismatches in a row an account is tried again more slowly.
const MISMATCHES_AT_ONCE: u32 = 3;

/// How far encrypting came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encrypting {
    /// Every waiting message has its ciphertexts.
    Done,
    /// A device has no usable session, which a message needs.
    NeedsBundles,
    /// An identity key waits for a decision.
    NeedsDecision,
}

impl Engine {
    /// Takes a message over: when this returns it is on disk and will be sent.
    ///
    /// # Errors
    /// [`SendError`]; nothing was stored.
    pub(crate) fn send(
        &mut self,
        to: ServiceId,
        data: Data,
        turn: &mut Turn<'_>,
    ) -> Result<SentId, SendError> {
        if to == self.local.address.service_id {
            return Err(SendError::ToOurselves);
        }
        check(&data)?;
        let (local, own) = (&self.local, &self.own);
        let id = self.store.commit(|rows| {
            let content = Content {
                profile: Some(profile_of(own)),
                ..Content::new(Body::Data(data), rows.timestamp(turn.now)?)
            };
            let id = rows.put_out(to, Form::Numbered, &content)?;
            encrypt_waiting(rows, local, to, turn)?;
            Ok::<_, ProfileError>(id)
        })?;
        self.pump_stored(to, turn);
        Ok(SentId(id))
    }

    /// Brings on its way what a call of the app has just stored. The call has succeeded whatever becomes of
    /// this: a database that fails here fails again in the next input, whose caller can be told.
    pub(super) fn pump_stored(&mut self, account: ServiceId, turn: &mut Turn<'_>) {
        if let Err(error) = self.pump(account, turn) {
            tracing::warn!(%error, "outbox");
            self.flights.remove(&account);
        }
    }

    pub(crate) fn sent_state(&self, message: SentId) -> Result<SentState, ProfileError> {
        let rows = self.store.rows();
        Ok(match rows.outbox_state(message.0)? {
            Some((2, _, _)) => SentState::Refused,
            Some((_, _, 2)) => SentState::Read,
            Some((_, _, 1)) => SentState::Delivered,
            Some((0 | 1, 0, _)) => SentState::Waiting,
            // It is in the log, or is sent again from there.
            Some(_) => SentState::Accepted,
            None if message.0 >= 1 && message.0 <= rows.outbox_last()? => SentState::Accepted,
            None => SentState::Unknown,
        })
    }

    pub(super) fn pump_all(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.link == Link::Down {
            return Ok(());
        }
        for account in self.store.rows().waiting_accounts()? {
            if self.is_full() {
                break;
            }
            self.pump(account, turn)?;
        }
        self.pump_groups(turn)
    }

    /// Whether as much is on its way as may be. What waits for another try takes nobody's place.
    pub(super) fn is_full(&self) -> bool {
        let on_its_way = self.flights.values().filter(|flight| flight.retry_at.is_none());
        on_its_way.count() >= self.settings.parallel
    }

    /// Brings the oldest message to an account on its way, unless one is.
    pub(super) fn pump(
        &mut self,
        account: ServiceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if self.link == Link::Down || self.is_full() || self.flights.contains_key(&account) {
            return Ok(());
        }
        let Some(first) = self.store.rows().first_waiting(account)? else { return Ok(()) };
        if self.store.rows().peer(account)?.is_some_and(|peer| peer.decision == Decision::Awaited) {
            return Ok(());
        }
        if let Some(submission_id) = first.submission_id {
            return self.launch_submission(account, &first, submission_id, turn);
        }
        let local = &self.local;
        let encrypting = self.store.commit(|rows| encrypt_waiting(rows, local, account, turn))?;
        if encrypting == Encrypting::NeedsDecision {
            return Ok(());
        }
        match self.store.rows().first_waiting(account)? {
            Some(first @ Waiting { submission_id: Some(id), .. }) => {
                self.launch_submission(account, &first, id, turn)
            }
            _ if encrypting == Encrypting::NeedsBundles => {
                let request_id = turn.random();
                self.launch(account, Stage::Bundles { request_id }, turn)
            }
            _ => Ok(()),
        }
    }

    fn launch_submission(
        &mut self,
        account: ServiceId,
        first: &Waiting,
        submission_id: [u8; 16],
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        // Without a certificate it waits; the answer to that request looks here again.
        let Some(certificate) = self.usable_certificate(turn) else { return Ok(()) };
        let rows = self.store.rows();
        let identity = rows.peer(account)?.and_then(|peer| peer.identity);
        let identity = identity.ok_or(ProfileError::Damaged { what: "peer" })?;
        let ciphertexts = rows.ciphertexts(first.id)?;
        // Only what is in the log can be sent again.
        let hint = match first.form {
            Form::Numbered | Form::Notice | Form::Group => ContentHint::Resendable,
            Form::Loose | Form::Plaintext => ContentHint::Implicit,
        };
        let Some(messages) = self.seal(&certificate, &identity, ciphertexts, hint, turn) else {
            return self.give_up(account, first.id, Refused::ByServer { status: 400 }, turn);
        };
        let submission = Submission {
            submission_id: Bytes::copy_from_slice(&submission_id),
            messages,
            background: matches!(first.form, Form::Loose),
        };
        let body = submission.encode_to_vec().into();
        let message = first.id;
        self.launch(account, Stage::Submission { message, submission_id, body }, turn)
    }

    /// `None` when nothing can be sealed for this identity key.
    fn seal(
        &self,
        certificate: &SenderCertificate,
        recipient: &IdentityKey,
        ciphertexts: Vec<Ciphertext>,
        hint: ContentHint,
        turn: &mut Turn<'_>,
    ) -> Option<Vec<DeviceMessage>> {
        let seal_one = |ciphertext: Ciphertext| {
            let content = SealedContent {
                kind: [ContentKind::PreKey, ContentKind::Plaintext]
                    .into_iter()
                    .find(|kind| *kind as u8 == ciphertext.kind)
                    .unwrap_or(ContentKind::Whisper),
                sender: certificate.clone(),
                content: ciphertext.body,
                hint,
                group_id: None,
            };
            let envelope =
                seal_v1(&content, &self.local.identity, recipient, &mut turn.rng).ok()?;
            Some(DeviceMessage {
                device_id: ciphertext.device_id.get().into(),
                registration_id: ciphertext.registration_id,
                content: envelope.into(),
            })
        };
        ciphertexts.into_iter().map(seal_one).collect()
    }

    fn launch(
        &mut self,
        account: ServiceId,
        stage: Stage,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        let flight =
            Flight { stage, ticket, attempt: 0, retry_at: None, authority: Authority::Token };
        self.flights.insert(account, flight);
        self.relaunch(account, turn)
    }

    /// Puts a flight on its way, again or for the first time.
    fn relaunch(&mut self, account: ServiceId, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        let key = self.store.rows().peer(account)?.and_then(|peer| peer.access_key);
        let authority = key.map_or(Authority::Token, Authority::AccessKey);
        let Some(flight) = self.flights.get_mut(&account) else { return Ok(()) };
        flight.retry_at = None;
        flight.authority = authority;
        let ticket = flight.ticket;
        match &flight.stage {
            Stage::Bundles { request_id } => {
                let request_id = *request_id;
                turn.actions.push(Action::FetchBundles { account, ticket, request_id, authority });
            }
            Stage::Submission { body, .. } => {
                let body = body.clone();
                turn.actions.push(Action::Submit { account, ticket, body, authority });
            }
            Stage::Pause => {
                self.flights.remove(&account);
                return self.pump(account, turn);
            }
        }
        Ok(())
    }

    /// Tries again what waits for a time up to `until`, as far as there is room.
    pub(super) fn retry_flights(
        &mut self,
        turn: &mut Turn<'_>,
        until: tuckseal::Timestamp,
    ) -> Result<(), ProfileError> {
        let due = |flight: &Flight| flight.retry_at.is_some_and(|at| at <= until);
        let due: Vec<_> = self
            .flights
            .iter()
            .filter(|(_, flight)| due(flight))
            .map(|(account, _)| *account)
            .collect();
        for account in due {
            if self.is_full() {
                break;
            }
            self.relaunch(account, turn)?;
        }
        Ok(())
    }

    /// The flight that an answer is for; an answer to one that is no more is dropped.
    fn answered(&mut self, account: ServiceId, ticket: u64) -> Option<&mut Flight> {
        self.flights.get_mut(&account).filter(|flight| flight.ticket == ticket)
    }

    /// Ends a flight and looks for the next, to this account and, since there is room, to others.
    fn landed(&mut self, account: ServiceId, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        let was_full = self.is_full();
        self.flights.remove(&account);
        self.tell_if_empty(turn)?;
        self.pump(account, turn)?;
        if was_full { self.fill_up(turn) } else { self.pump_groups(turn) }
    }

    pub(super) fn tell_if_empty(&self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.store.rows().outbox_is_empty()? {
            turn.tell(Event::OutboxEmpty);
        }
        Ok(())
    }

    /// Leaves a flight for a while, at least for `least`; its place is for others meanwhile.
    fn put_off(
        &mut self,
        account: ServiceId,
        least: Duration,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let was_full = self.is_full();
        if let Some(flight) = self.flights.get_mut(&account) {
            flight.failed(least, turn);
        }
        if was_full { self.fill_up(turn) } else { Ok(()) }
    }

    /// There is room again, for what is due to be tried again and then for what has not been tried.
    fn fill_up(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        self.retry_flights(turn, turn.now)?;
        self.pump_all(turn)
    }

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
            Err(SubmitError::Devices(mismatch)) => {
                self.store.commit(|rows| apply_mismatch(rows, account, message, &mismatch))?;
                let count = self.mismatches.entry(account).or_default();
                *count += 1;
                match count.checked_sub(MISMATCHES_AT_ONCE + 1) {
                    Some(attempt) => self.pause(account, attempt, turn),
                    None => self.landed(account, turn),
                }
            }
            Err(SubmitError::Server(error)) => {
                self.request_failed(account, Some(message), &error, turn)
            }
        }
    }

    fn pause(
        &mut self,
        account: ServiceId,
        attempt: u32,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        if let Some(flight) = self.flights.get_mut(&account) {
            flight.stage = Stage::Pause;
            flight.attempt = attempt;
        }
        self.put_off(account, Duration::ZERO, turn)
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
            (ServerError::Refused { status }, _) => match message {
                Some(message) => {
                    self.give_up(account, message, Refused::ByServer { status: *status }, turn)
                }
                None => self.give_up_all(account, Refused::ByServer { status: *status }, turn),
            },
            _ => self.put_off(account, error.retry_after(), turn),
        }
    }

    fn give_up(
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
            turn.tell(Event::Refused { message: SentId(message), reason });
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
        let Some(offer) = read_bundles(&bundles) else { return self.bad_bundle(account, turn) };
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

/// How the recipient reaches us from now on.
pub(super) fn profile_of(own: &Own) -> Profile {
    Profile { access_key: own.access_key, name: own.name.clone() }
}

/// Whether this fits an envelope.
pub(super) fn check(data: &Data) -> Result<(), SendError> {
    let (found, limit) = (data.text.len(), MAX_TEXT_BYTES);
    if found > limit {
        return Err(SendError::TooLong { found, limit });
    }
    let found = Content::new(Body::Data(data.clone()), Timestamp::from_millis(0)).encode().len();
    let limit = MAX_TEXT_BYTES + MAX_BESIDE_BYTES;
    if found > limit { Err(SendError::TooLong { found, limit }) } else { Ok(()) }
}

/// Gives the waiting messages a ciphertext for every device, in their order, until one needs a session that
/// is not there.
fn encrypt_waiting(
    rows: Rows<'_>,
    local: &LocalParty,
    to: ServiceId,
    turn: &mut Turn<'_>,
) -> Result<Encrypting, ProfileError> {
    let Some(peer) = rows.peer(to)? else { return Ok(Encrypting::NeedsBundles) };
    if peer.decision == Decision::Awaited {
        return Ok(Encrypting::NeedsDecision);
    }
    let mut devices = rows.devices(to)?;
    let (Some(identity), false) = (peer.identity, devices.is_empty()) else {
        return Ok(Encrypting::NeedsBundles);
    };
    let mut encrypting = Encrypting::Done;
    'messages: for waiting in rows.not_encrypted(to)? {
        for device in &mut devices {
            encrypting = encrypt_for(rows, local, device, &identity, &waiting, turn)?;
            if encrypting != Encrypting::Done {
                break 'messages;
            }
        }
        rows.mark_encrypted(waiting.id, turn.random())?;
    }
    devices.iter().try_for_each(|device| rows.save_device(device))?;
    Ok(encrypting)
}

/// Gives one message a ciphertext for one device, unless it has one.
fn encrypt_for(
    rows: Rows<'_>,
    local: &LocalParty,
    device: &mut Device,
    identity: &IdentityKey,
    waiting: &Waiting,
    turn: &mut Turn<'_>,
) -> Result<Encrypting, ProfileError> {
    let device_id = device.address.device_id;
    let progress = rows.progress(waiting.id, device_id)?;
    if progress == Progress::Encrypted {
        return Ok(Encrypting::Done);
    }
    let is_for_it = waiting.device.is_none_or(|wanted| wanted == device_id.get());
    let (stream, sequence) = match progress {
        _ if !waiting.form.is_numbered() => (0, 0),
        Progress::Numbered { stream, sequence } => (stream, sequence),
        _ => (stream_of(device, turn), device.sent + 1),
    };
    let (kind, body) = if waiting.form == Form::Plaintext && is_for_it {
        (ContentKind::Plaintext, waiting.content.clone())
    } else {
        let content = if is_for_it { &waiting.content[..] } else { &[] };
        let content =
            Content::decode(content).map_err(|_| ProfileError::Damaged { what: "outbox" })?;
        let plaintext = Content { stream, sequence, ..content }.encode_padded();
        let (trust, now) = (Trust::Only(*identity), turn.now);
        let rng = &mut turn.rng;
        let session = &mut device.session;
        match session.encrypt(local, &device.address, &plaintext, trust, rng, now) {
            Ok(it) if it.kind == MessageKind::PreKey => (ContentKind::PreKey, it.body),
            Ok(it) => (ContentKind::Whisper, it.body),
            Err(_) => {
                // The session is of no use any more; it still reads what is on its way to us.
                session.archive_current();
                return Ok(Encrypting::NeedsBundles);
            }
        }
    };
    if sequence > device.sent {
        (device.sent_stream, device.sent) = (stream, sequence);
    }
    let session = match kind {
        ContentKind::Plaintext => None,
        _ => device.session.info().map(|info| *info.base_key.as_u()),
    };
    let ciphertext = Ciphertext {
        device_id,
        registration_id: device.registration_id,
        kind: kind as u8,
        stream,
        sequence,
        digest: digest(&body),
        session,
        body: body.into(),
    };
    rows.insert_ciphertext(waiting.id, &ciphertext)?;
    Ok(Encrypting::Done)
}

/// The stream of what we send to a device: the one that was begun, or a new one.
fn stream_of(device: &Device, turn: &mut Turn<'_>) -> u64 {
    match device.sent_stream {
        0 => (u64::from_le_bytes(turn.random()) >> 1).max(1),
        stream => stream,
    }
}

/// The recipient has other devices than we thought. Nothing of `message` was stored.
pub(super) fn apply_mismatch(
    rows: Rows<'_>,
    account: ServiceId,
    message: u64,
    mismatch: &DeviceMismatch,
) -> Result<(), ProfileError> {
    let address =
        |id: &u32| DeviceId::try_from(*id).ok().map(|device| Address::new(account, device));
    for extra in mismatch.extra.iter().filter_map(address) {
        rows.delete_ciphertexts(extra)?;
        rows.delete_device(extra)?;
    }
    let submitted = rows.ciphertexts(message)?;
    for stale in mismatch.stale.iter().filter_map(address) {
        let Some(mut device) = rows.device(stale)? else { continue };
        let used = submitted.iter().find(|ciphertext| ciphertext.device_id == stale.device_id);
        // Unless a newer session has come in meanwhile.
        if used.is_some_and(|used| used.registration_id == device.registration_id) {
            device.session.archive_current();
        }
        forget_stream(rows, &mut device)?;
        rows.save_device(&device)?;
    }
    for missing in mismatch.missing.iter().filter_map(address) {
        if rows.device(missing)?.is_none() {
            rows.save_device(&Device::unknown(missing))?;
        }
    }
    rows.untell(account)?;
    rows.mark_not_encrypted(account)
}

/// What a device gets begins at 1 again, in another stream, and what waits is encrypted anew.
pub(super) fn forget_stream(rows: Rows<'_>, device: &mut Device) -> Result<(), ProfileError> {
    (device.sent_stream, device.sent) = (0, 0);
    rows.untell(device.address.service_id)?;
    rows.delete_ciphertexts(device.address)
}
