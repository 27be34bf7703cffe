//! What is on its way, and when it is tried again.

use std::time::Duration;

use bytes::Bytes;
use tuckseal::Timestamp;

use super::settings::later;
use super::{Authority, Turn};
use crate::backoff;

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
        self.retry_at().is_some_and(|at| at <= now)
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
