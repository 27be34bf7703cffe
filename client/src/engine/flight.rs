//! What is on its way, and when it is tried again.

use std::time::Duration;

use bytes::Bytes;
use tuckseal::{ServiceId, Timestamp};

use super::settings::later;
use super::{Action, Authority, Engine, Turn};
use crate::backoff;
use crate::event::Event;
use crate::store::ProfileError;

/// The one thing that is on its way to an account, or waits to be.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) stage: Stage,
    /// An answer counts for the flight whose ticket it carries.
    pub(super) ticket: u64,
    /// Failures in a row.
    pub(super) attempt: u32,
    /// `None`: it is on its way.
    pub(super) retry_at: Option<Timestamp>,
    /// By what right it was made the last time.
    pub(super) authority: Authority,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Asks for prekey bundles.
    Bundles { request_id: [u8; 16] },
    /// Submits a message: the same bytes each time.
    Submission { message: u64, submission_id: [u8; 16], body: Bytes },
    /// Waits before it looks again.
    Pause,
}

/// Nothing waits longer: a time that is further ahead was told by a clock that has been put back since.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Whether the time for another try has come.
pub(super) fn is_due(at: Timestamp, now: Timestamp) -> bool {
    at <= now || at > later(now, LONGEST)
}

impl Flight {
    /// It failed for now; it is tried again after a while, which is at least `least`.
    pub(super) fn failed(&mut self, least: Duration, turn: &mut Turn<'_>) {
        let wait = backoff::delay(self.attempt, &mut turn.rng).max(least);
        self.attempt = self.attempt.saturating_add(1);
        self.retry_at = Some(later(turn.now, wait));
    }
}

/// A request of which there is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Idle,
    OnItsWay {
        attempt: u32,
    },
    /// Its second step, for keys alone.
    Uploading {
        attempt: u32,
    },
    Waiting {
        attempt: u32,
        retry_at: Timestamp,
    },
}

impl Request {
    pub(super) fn retry_at(self) -> Option<Timestamp> {
        match self {
            Self::Waiting { retry_at, .. } => Some(retry_at),
            Self::Idle | Self::OnItsWay { .. } | Self::Uploading { .. } => None,
        }
    }

    pub(super) fn is_due(self, now: Timestamp) -> bool {
        self.retry_at().is_some_and(|at| is_due(at, now))
    }

    pub(super) fn again(self) -> Self {
        Self::OnItsWay { attempt: self.attempt() }
    }

    pub(super) fn failed(self, turn: &mut Turn<'_>) -> Self {
        let retry_at = later(turn.now, backoff::delay(self.attempt(), &mut turn.rng));
        Self::Waiting { attempt: self.attempt().saturating_add(1), retry_at }
    }

    /// It waits at least so long.
    pub(super) fn put_off(self, least: Duration, now: Timestamp) -> Self {
        match self {
            Self::Waiting { attempt, retry_at } => {
                Self::Waiting { attempt, retry_at: retry_at.max(later(now, least)) }
            }
            other => other,
        }
    }

    pub(super) fn attempt(self) -> u32 {
        match self {
            Self::Idle => 0,
            Self::OnItsWay { attempt }
            | Self::Uploading { attempt }
            | Self::Waiting { attempt, .. } => attempt,
        }
    }
}

impl Engine {
    /// Whether as much is on its way as may be. What waits for another try takes nobody's place.
    pub(super) fn is_full(&self) -> bool {
        let on_its_way = self.flights.values().filter(|flight| flight.retry_at.is_none());
        on_its_way.count() >= self.settings.parallel
    }

    pub(super) fn launch(
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
    pub(super) fn relaunch(
        &mut self,
        account: ServiceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
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
        until: Timestamp,
    ) -> Result<(), ProfileError> {
        let due = |flight: &Flight| flight.retry_at.is_some_and(|at| is_due(at, until));
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
    pub(super) fn answered(&mut self, account: ServiceId, ticket: u64) -> Option<&mut Flight> {
        self.flights.get_mut(&account).filter(|flight| flight.ticket == ticket)
    }

    /// Ends a flight and looks for the next, to this account and, since there is room, to others.
    pub(super) fn landed(
        &mut self,
        account: ServiceId,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
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
    pub(super) fn put_off(
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

    pub(super) fn pause(
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_no_clock_of_now_would_have_told_has_come() {
        let now = Timestamp::from_millis(10_000_000);
        assert!(is_due(now, now) && is_due(Timestamp::from_millis(1), now));
        assert!(!is_due(later(now, Duration::from_millis(1)), now));
        assert!(!is_due(later(now, LONGEST), now));
        assert!(is_due(later(now, LONGEST + Duration::from_millis(1)), now));
    }
}
