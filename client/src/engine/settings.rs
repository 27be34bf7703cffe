//! What an app may set, with the defaults.

use std::time::Duration;

use tuckseal::Timestamp;

use super::receipts::Receipts;

/// Bounds and times of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a message waits for an earlier one that is missing: 10 s.
    pub gap_wait: Duration,
    /// How many messages of a device may wait for a missing one: 256.
    pub gap_messages: u64,
    /// How many envelopes of an account are held while its new identity key waits for a decision: 256.
    pub held_messages: u32,
    /// One-time prekeys at the server below which new ones are uploaded: 20.
    pub prekeys_low: u32,
    /// One-time EC prekeys that the server is filled up to: 100, which is the most in one upload.
    pub one_time_prekeys: u32,
    /// One-time KEM prekeys that the server is filled up to: 50.
    pub one_time_kem_prekeys: u32,
    /// Age at which the signed and the last-resort prekey are replaced: 7 days.
    pub prekey_life: Duration,
    /// How long a replaced one still opens what comes, which is as long as a relay keeps it: 30 days.
    pub prekey_kept: Duration,
    /// Requests on their way to different recipients at the same time: 8.
    pub parallel: usize,
    /// Least time between two requests to a device to send again, doubled for each without success up to an
    /// hour; half of it between two answers, and so between two new sessions, for a device that asks: 30 s.
    pub retry_interval: Duration,
    /// Least time between two requests for group messages that could not be read, doubled for each without
    /// success up to an hour: 1 s.
    pub group_retry_interval: Duration,
    /// How long a sent message is kept, for who asks for it again: 14 days.
    pub sent_kept: Duration,
    /// Which receipts are sent: both.
    pub receipts: Receipts,
    /// How many sent messages are kept at most: 10,000.
    pub sent_messages: u32,
}

const DAY_SECS: u64 = 24 * 60 * 60;

impl Default for Settings {
    fn default() -> Self {
        Self {
            gap_wait: Duration::from_secs(10),
            gap_messages: 256,
            held_messages: 256,
            prekeys_low: 20,
            one_time_prekeys: 100,
            one_time_kem_prekeys: 50,
            prekey_life: Duration::from_secs(7 * DAY_SECS),
            prekey_kept: Duration::from_secs(30 * DAY_SECS),
            parallel: 8,
            retry_interval: Duration::from_secs(30),
            group_retry_interval: Duration::from_secs(1),
            sent_kept: Duration::from_secs(14 * DAY_SECS),
            receipts: Receipts::DeliveredAndRead,
            sent_messages: 10_000,
        }
    }
}

impl Settings {
    pub(crate) fn gap_deadline(&self, since: Timestamp) -> Timestamp {
        later(since, self.gap_wait)
    }
}

/// `now` and a while.
pub(crate) fn later(now: Timestamp, wait: Duration) -> Timestamp {
    let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_add(wait))
}

/// `now` less a while.
pub(crate) fn earlier(now: Timestamp, age: Duration) -> Timestamp {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.as_millis().saturating_sub(age))
}
