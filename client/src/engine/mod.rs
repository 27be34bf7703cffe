//! The engine: what follows from what. It decides and writes to the store; it has no socket, thread or
//! clock. `send.rs` takes messages over, `encrypt.rs` makes their ciphertexts, `flight.rs` knows what is on its way,
//! `answers.rs` takes what the server says to it, `bundle.rs` begins sessions. `receive.rs` takes envelopes in,
//! `decrypt.rs` opens them, `order.rs` gives them their turn, `deliver.rs` takes their content, `membership.rs` what is of
//! a group, `receipts.rs` tells their senders. `group.rs` writes to many, `group_upload.rs` in one upload, `recovery.rs` asks for what could not be read,
//! `identity.rs` carries out what the app decides about keys, `prekeys.rs` keeps the server supplied,
//! `devices.rs` keeps the other devices of the account up to date, `push.rs` has the server told where this one is woken,
//! `reports.rs` keeps a stock of report tokens.
//!
//! What is in memory here is only what is on its way; everything else is read from the store when needed.

mod action;
mod answers;
mod bundle;
mod decrypt;
mod deliver;
mod devices;
mod encrypt;
mod flight;
mod group;
mod group_upload;
mod identity;
mod membership;
mod order;
mod prekeys;
mod push;
mod receipts;
mod receive;
mod recovery;
mod reports;
mod send;
mod settings;
mod typing;

use std::collections::HashMap;

use rand_core::CryptoRng;
use tuckseal::{LocalParty, SenderCertificate, ServiceId, Timestamp};

pub(crate) use action::{Action, Authority, Input};
pub(crate) use devices::linked_by;
pub(crate) use group::Change;
pub(crate) use prekeys::{new_profile, registration_keys};
pub use receipts::Receipts;
pub use settings::Settings;
pub(crate) use settings::later;

use crate::event::Event;
use crate::store::{Account, Origin, Own, ProfileError, Store};
use flight::{Flight, Request};
use settings::earlier;

/// A certificate is replaced when less than this is left of its life: 6 h.
const CERTIFICATE_MARGIN_MS: u64 = 6 * 60 * 60 * 1000;

/// How often the log of what was sent is looked through: each hour.
const TRIM: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Whether the stream is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// What waited at the relay is coming in.
    Up,
    /// All of it has come.
    Live,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) own: Own,
    pub(crate) account: Account,
    local: LocalParty,
    settings: Settings,
    link: Link,
    /// The server's clock less ours, in milliseconds.
    clock_skew_ms: i64,
    certificate: Option<SenderCertificate>,
    certificate_request: Request,
    keys_request: Request,
    push_request: Request,
    report_request: Request,
    devices_request: Request,
    /// When the devices of the account were asked for, and the last message that was in the outbox then.
    devices_asked: (Timestamp, u64),
    /// As in the store.
    device_expected: Option<Timestamp>,
    /// Whether the server has heard where the device is woken, since the start.
    push_told: bool,
    /// What is on its way to whom: one at a time for each account, so that their order is kept.
    flights: HashMap<ServiceId, Flight>,
    /// Device mismatches in a row.
    mismatches: HashMap<ServiceId, u32>,
    last_ticket: u64,
    /// The message for many that is on its way.
    group_flight: Option<group_upload::GroupFlight>,
    /// Whether this profile was found to be an earlier one than was used last, and what came of it.
    origin: Origin,
    /// Whether the server has replaced the one-time prekeys since.
    restocked: bool,
    /// What happened when nobody could hear it yet.
    unheard: Option<Event>,
    trim_at: Timestamp,
}

/// One call of the engine: the randomness and the time it may use, and what it wants done afterwards.
pub(crate) struct Turn<'a> {
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) now: Timestamp,
    pub(crate) actions: Vec<Action>,
    /// Messages that came in, for which a receipt is due.
    received: Vec<(ServiceId, Timestamp)>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(rng: &'a mut dyn CryptoRng, now: Timestamp) -> Self {
        Self { rng, now, actions: Vec::new(), received: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        self.actions.push(Action::Tell(event));
    }

    fn random<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.rng.fill_bytes(&mut bytes);
        bytes
    }
}

impl Engine {
    /// The engine of a registered profile.
    ///
    /// # Errors
    /// [`ProfileError`] when the store cannot be read.
    pub(crate) fn new(
        mut store: Store,
        own: Own,
        account: Account,
        settings: Settings,
    ) -> Result<Self, ProfileError> {
        let encoded = store.rows().certificate()?;
        let origin = store.origin();
        if origin == Origin::Restored {
            store.commit(recovery::restored)?;
        }
        store.settle()?;
        let device_expected = store.rows().device_expected()?;
        // One that cannot be read is fetched again.
        let certificate = encoded.and_then(|encoded| SenderCertificate::decode(&encoded).ok());
        Ok(Self {
            local: own.local_party(account.address),
            store,
            own,
            account,
            settings,
            link: Link::Down,
            clock_skew_ms: 0,
            certificate,
            certificate_request: Request::Idle,
            keys_request: Request::Idle,
            push_request: Request::Idle,
            report_request: Request::Idle,
            devices_request: Request::Idle,
            devices_asked: (Timestamp::from_millis(0), 0),
            device_expected,
            push_told: false,
            flights: HashMap::new(),
            mismatches: HashMap::new(),
            last_ticket: 0,
            group_flight: None,
            origin,
            restocked: false,
            unheard: (origin == Origin::Restored).then_some(Event::Restored),
            trim_at: Timestamp::from_millis(0),
        })
    }

    /// Takes what has happened in; what is to be done stands in the turn afterwards.
    ///
    /// # Errors
    /// [`ProfileError`]: the store failed. Close the profile; nothing is lost.
    pub(crate) fn handle(&mut self, input: Input, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        match input {
            Input::Connected => self.connected(turn)?,
            Input::Disconnected => self.link = Link::Down,
            Input::Stopped => self.stopped(),
            Input::Delivered(envelopes) => self.delivered(&envelopes, turn)?,
            Input::Passed(ephemeral) => self.passed(&ephemeral, turn)?,
            Input::QueueEmpty => {
                self.link = Link::Live;
                turn.tell(Event::QueueEmpty);
            }
            Input::Gap { dropped } => turn.tell(Event::Dropped { count: dropped }),
            Input::ServerInfo(info) => self.server_info(&info, turn),
            Input::KeyCounts(counts) => self.key_counts(counts, turn)?,
            Input::KeysUploaded { upload, result } => self.keys_uploaded(upload, result, turn)?,
            Input::Certificate(result) => self.certificate_answer(result, turn)?,
            Input::Bundles { account, ticket, result } => {
                self.bundles(account, ticket, result, turn)?
            }
            Input::Submitted { account, ticket, result } => {
                self.submitted(account, ticket, result, turn)?
            }
            Input::MultiSubmitted { ticket, result } => {
                self.multi_submitted(ticket, result, turn)?
            }
            Input::PushTold(result) => self.push_told(result, turn),
            Input::ReportTokens(result) => self.report_tokens(result, turn)?,
            Input::Devices(result) => self.own_devices(result, turn)?,
            Input::Tick => self.tick(turn)?,
        }
        Ok(())
    }

    fn connected(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        self.link = Link::Up;
        turn.tell(Event::Connected);
        if let Some(event) = self.unheard.take() {
            turn.tell(event);
        }
        turn.actions.push(Action::FetchServerInfo);
        self.devices_request = Request::OnItsWay { attempt: 0 };
        self.ask_devices(turn)?;
        self.keys_request = Request::OnItsWay { attempt: 0 };
        turn.actions.push(Action::FetchKeyCounts);
        self.certificate_request = Request::Idle;
        self.want_certificate(turn);
        self.want_push(turn)?;
        self.report_request = Request::Idle;
        self.want_report_tokens(turn)?;
        self.retry_flights(turn, Timestamp::from_millis(u64::MAX))?;
        self.retry_group(turn, Timestamp::from_millis(u64::MAX));
        self.trim_log(turn)?;
        self.ask_due(turn)?;
        self.pump_all(turn)
    }

    fn trim_log(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        let before = earlier(turn.now, self.settings.sent_kept);
        let newest = self.settings.sent_messages;
        self.store.commit(|rows| {
            rows.delete_passing()?;
            rows.trim_log(before, newest)?;
            membership::trim(rows, before, turn)
        })?;
        self.trim_at = later(turn.now, TRIM);
        Ok(())
    }

    fn stopped(&mut self) {
        self.link = Link::Down;
        self.flights.clear();
        self.group_flight = None;
        self.certificate_request = Request::Idle;
        self.keys_request = Request::Idle;
        self.push_request = Request::Idle;
        self.report_request = Request::Idle;
        self.devices_request = Request::Idle;
    }

    fn server_info(&mut self, info: &tuckseal::service::ServerInfo, turn: &mut Turn<'_>) {
        if info.trust_root[..] != self.account.trust_root.serialize() {
            turn.actions.push(Action::StopWrongTrustRoot);
            return;
        }
        let skew = i128::from(info.now_ms) - i128::from(turn.now.as_millis());
        self.clock_skew_ms = i64::try_from(skew).unwrap_or(0);
    }

    /// Whether all that waited at the relay has come over the stream that is open.
    pub(crate) fn is_live(&self) -> bool {
        self.link == Link::Live
    }

    /// When [`Input::Tick`] is due, if at all.
    pub(crate) fn next_tick(&self) -> Result<Option<Timestamp>, ProfileError> {
        let early =
            self.store.rows().oldest_early()?.map(|(_, since)| self.settings.gap_deadline(since));
        if self.link == Link::Down {
            return Ok(early);
        }
        // Without room for them, those that are due wait for the next answer.
        let is_full = self.is_full();
        let due = |flight: &Flight| flight.retry_at.filter(|_| !is_full);
        let flights = self.flights.values().filter_map(due);
        let requests = [
            self.certificate_request.retry_at(),
            self.keys_request.retry_at(),
            self.push_request.retry_at(),
            self.report_request.retry_at(),
            self.devices_request.retry_at(),
            self.device_expected.filter(|_| self.devices_request == Request::Idle),
            self.next_retry()?,
            Some(self.trim_at),
            self.group_flight.as_ref().and_then(|flight| flight.retry_at),
        ];
        Ok(flights.chain(requests.into_iter().flatten()).chain(early).min())
    }

    fn tick(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        self.release_overdue(turn)?;
        if self.link == Link::Down {
            return Ok(());
        }
        if flight::is_due(self.trim_at, turn.now) {
            self.trim_log(turn)?;
            // Either clock may have been set since the stream was opened.
            turn.actions.push(Action::FetchServerInfo);
        }
        self.ask_due(turn)?;
        if self.keys_request.is_due(turn.now) {
            self.keys_request = self.keys_request.again();
            turn.actions.push(Action::FetchKeyCounts);
        }
        if self.certificate_request.is_due(turn.now) {
            self.certificate_request = self.certificate_request.again();
            turn.actions.push(Action::FetchCertificate);
        }
        if self.push_request.is_due(turn.now) {
            self.push_request = self.push_request.again();
            turn.actions.push(Action::TellPush);
        }
        if self.report_request.is_due(turn.now) {
            self.report_request = self.report_request.again();
            turn.actions.push(Action::FetchReportTokens);
        }
        if self.devices_request.is_due(turn.now) {
            self.devices_request = self.devices_request.again();
            self.ask_devices(turn)?;
        } else if self.is_list_due(turn.now) {
            self.want_devices(turn)?;
        }
        self.retry_flights(turn, turn.now)?;
        self.retry_group(turn, turn.now);
        self.pump_groups(turn)
    }

    /// The certificate, if it has not expired. One that soon will is replaced meanwhile.
    fn usable_certificate(&mut self, turn: &mut Turn<'_>) -> Option<SenderCertificate> {
        self.want_certificate(turn);
        let now = self.server_time(turn.now);
        self.certificate.clone().filter(|certificate| certificate.expires() > now)
    }

    fn want_certificate(&mut self, turn: &mut Turn<'_>) {
        let wanted_until =
            self.server_time(turn.now).as_millis().saturating_add(CERTIFICATE_MARGIN_MS);
        let fresh =
            self.certificate.as_ref().is_some_and(|it| it.expires().as_millis() > wanted_until);
        if !fresh && self.link != Link::Down && self.certificate_request == Request::Idle {
            self.certificate_request = Request::OnItsWay { attempt: 0 };
            turn.actions.push(Action::FetchCertificate);
        }
    }

    fn certificate_answer(
        &mut self,
        result: Result<tuckseal::service::SenderCertificateAnswer, crate::transport::ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        let usable =
            result.ok().and_then(|answer| self.check_certificate(&answer.certificate, turn.now));
        let Some(certificate) = usable else {
            self.certificate_request = self.certificate_request.failed(turn);
            return Ok(());
        };
        self.store.commit(|rows| rows.set_certificate(certificate.encode()))?;
        self.certificate = Some(certificate);
        self.certificate_request = Request::Idle;
        self.pump_all(turn)
    }

    /// A certificate that peers would refuse is of no use.
    fn check_certificate(&self, encoded: &[u8], now: Timestamp) -> Option<SenderCertificate> {
        let certificate = SenderCertificate::decode(encoded).ok()?;
        certificate.validate(&[self.account.trust_root], &[], self.server_time(now)).ok()?;
        let ours = certificate.sender() == Some(self.local.address)
            && *certificate.identity_key() == self.local.identity.identity_key();
        ours.then_some(certificate)
    }

    fn server_time(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.as_millis().saturating_add_signed(self.clock_skew_ms))
    }
}
