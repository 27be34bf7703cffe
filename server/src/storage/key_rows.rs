//! What goes into and out of the store where prekeys are uploaded and taken: plain rows, checked before they come here.

use std::sync::Arc;

use bytes::Bytes;

use super::MailboxId;

/// The two kinds of key pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// 33 bytes; signed or one-time.
    Curve,
    /// 1569 bytes; one-time or last resort.
    Kem,
}

/// One public prekey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreKeyRow {
    /// 1 or more.
    pub id: u32,
    /// 33 or 1569 bytes.
    pub key: Bytes,
    /// 64 bytes, or none for one-time keys of the curve.
    pub signature: Bytes,
}

/// An upload that has passed all checks.
#[derive(Debug, Clone)]
pub struct KeySet {
    /// Replaces the signed prekey.
    pub signed: Option<PreKeyRow>,
    /// Replaces the last-resort KEM prekey.
    pub last_resort: Option<PreKeyRow>,
    /// In ascending order of ids.
    pub one_time: Vec<PreKeyRow>,
    /// In ascending order of ids.
    pub one_time_kem: Vec<PreKeyRow>,
    /// What becomes of the one-time prekeys that are there.
    pub waiting: Waiting,
    /// SHA-256 over all of it: the same digest is the same upload.
    pub digest: [u8; 32],
    /// How many one-time prekeys of a kind a device may have waiting.
    pub max_waiting: u32,
}

/// One-time prekeys that are there when others come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// They stay.
    Stay,
    /// They go in the same transaction, and all ids of the upload are above the high-water marks.
    Go,
}

/// What a device has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// One-time curve prekeys left.
    pub one_time: u32,
    /// One-time KEM prekeys left.
    pub one_time_kem: u32,
    /// The largest one-time curve id ever stored.
    pub high_water: u32,
    /// The largest one-time KEM id ever stored.
    pub high_water_kem: u32,
    /// How often the last-resort KEM prekey was handed out.
    pub last_resort_uses: u64,
    /// The signed prekey.
    pub signed: PreKeyRow,
    /// The last-resort KEM prekey.
    pub last_resort: PreKeyRow,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutKeys {
    /// Stored, or known already.
    Stored(KeyState),
    /// An id was used for other bytes. Nothing was stored.
    Collision(KeyCollision),
    /// The device has too many one-time prekeys waiting. Nothing was stored.
    TooMany,
    /// The device is gone.
    NoDevice,
}

/// An id at or below the high-water mark came with other bytes than are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyCollision {
    /// The id.
    pub id: u32,
    /// What the device has.
    pub known: Box<KeyState>,
}

/// How often a device gives one-time prekeys away: so many at once, and then one in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// At once; none: never.
    pub burst: u32,
    /// In milliseconds.
    pub period_ms: i64,
}

impl Pace {
    /// One more, where the budget would be full again at `full_ms`: when it is then. None if it is used up.
    pub(super) fn spend(self, full_ms: i64, now_ms: i64) -> Option<i64> {
        let full = full_ms.max(now_ms);
        let rest = i64::from(self.burst.checked_sub(1)?).saturating_mul(self.period_ms);
        (full.saturating_sub(now_ms) <= rest).then(|| full.saturating_add(self.period_ms))
    }
}

/// Makes the answer to a request.
pub type MakeAnswer = Arc<dyn Fn(&[TakenDevice]) -> Bytes + Send + Sync>;

/// The answer is kept in the same transaction, for a repetition of the request.
#[derive(Clone)]
pub struct Keep {
    /// What names the request.
    pub request: [u8; 16],
    /// What it gets.
    pub answer: MakeAnswer,
}

/// Which bundles, and how.
#[derive(Clone)]
pub struct Fetch {
    /// The account's number.
    pub account_row: i64,
    /// One device, or all.
    pub device: Option<u8>,
    /// The clock, in milliseconds.
    pub now_ms: i64,
    /// Of each device.
    pub pace: Pace,
    /// None: a repetition takes others.
    pub keep: Option<Keep>,
}

/// What a request for bundles got.
pub enum Taken {
    /// One for each device; none if there is no such device.
    Now(Vec<TakenDevice>),
    /// The answer that the request got before.
    Before(Bytes),
}

/// Whether the last-resort prekey of a device was handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KemUse {
    /// A one-time KEM prekey was.
    OneTime,
    /// The last-resort KEM prekey was.
    LastResort,
}

/// The bundle of one device.
#[derive(Debug, Clone)]
pub struct TakenDevice {
    /// AppendAnswer.
    pub mailbox: MailboxId,
    /// 1..127.
    pub device: u8,
    /// 1..0x3FFC.
    pub registration_id: u16,
    /// The signed prekey.
    pub signed: PreKeyRow,
    /// A one-time curve prekey, if one was left.
    pub one_time: Option<PreKeyRow>,
    /// The KEM prekey.
    pub kem: PreKeyRow,
    /// Which one that is.
    pub kem_use: KemUse,
    /// One-time curve and KEM prekeys left after this.
    pub left: (u32, u32),
}
