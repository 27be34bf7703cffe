//! What goes into and out of the store where devices are linked, listed and removed: plain rows, checked before they come here.

use bytes::Bytes;

use super::{AccountId, KeySet, MailboxId, Registering};

/// Devices that links make.
const NUMBERS: std::ops::RangeInclusive<u8> = 2..=127;

/// A link that a device asks for.
#[derive(Clone, Copy)]
pub struct OpeningLink {
    /// The mailbox of the device that asks.
    pub by: MailboxId,
    /// Names it to those who wait for it.
    pub id: [u8; 16],
    /// SHA-256 of the linking token.
    pub token_hash: [u8; 32],
    /// It is worth nothing from then on.
    pub expires_ms: i64,
}

/// Whose a linking token is.
#[derive(Clone)]
pub struct LinkRow {
    /// The number of the account.
    pub account_row: i64,
    /// Of the account, 33 bytes.
    pub identity_key: [u8; 33],
}

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkState {
    /// The number of its account.
    pub account_row: i64,
    /// The device that was made with it, if that is so.
    pub device: Option<u8>,
}

/// The registration of a further device, which has passed all checks.
#[derive(Clone)]
pub struct Linking {
    /// SHA-256 of the linking token.
    pub link: [u8; 32],
    /// The clock, in milliseconds.
    pub now_ms: i64,
    /// SHA-256 of what was signed: the same again is a repetition.
    pub registration: [u8; 32],
    /// 1..0x3FFC.
    pub registration_id: u16,
    /// Encrypted, as it came.
    pub name: Bytes,
    /// SHA-256 of the device token.
    pub token_hash: [u8; 32],
    /// Both fixed prekeys are there.
    pub keys: KeySet,
    /// How many devices an account may have.
    pub max_devices: u32,
    /// Today, in days since 1970.
    pub day: i64,
}

impl Linking {
    /// The lowest number that is free, if the account may have a device besides these.
    pub(super) fn number(&self, taken: &[u8]) -> Option<u8> {
        let room = taken.len() < self.max_devices as usize;
        NUMBERS.into_iter().find(|number| room && !taken.contains(number))
    }
}

/// What became of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LinkAnswer {
    /// There is a device more.
    Made(Linked),
    /// It was made before by the same registration, and has another token now; connections with an epoch below this one
    /// are of the token of before.
    Renewed(Linked, i64),
    /// No link has this token, or no more, or another registration has used it. Nothing was changed.
    NoLink,
    /// The account has as many devices as it may. Nothing was changed, and the link is open still.
    Full,
}

/// A device that was made with a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Linked {
    /// Its account.
    pub account: AccountId,
    /// The number of that.
    pub account_row: i64,
    /// 2..127.
    pub device: u8,
    /// Its mailbox.
    pub mailbox: MailboxId,
}

/// A device as its account sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry {
    /// 1..127.
    pub device: u8,
    /// 1..0x3FFC.
    pub registration_id: u16,
    /// Encrypted, as it came.
    pub name: Bytes,
    /// When it was first registered, in days since 1970; 0: not known.
    pub made_day: i64,
}

/// A link as its use finds it.
pub(super) struct FoundLink {
    pub(super) account: AccountId,
    pub(super) account_row: i64,
    /// The device that was made, and the registration that made it.
    pub(super) made: Option<(i64, [u8; 32])>,
}

impl FoundLink {
    pub(super) fn linked(&self, device: u8, mailbox: MailboxId) -> Linked {
        Linked { account: self.account, account_row: self.account_row, device, mailbox }
    }
}

/// A device as it is written down.
pub(super) struct NewDevice<'a> {
    pub(super) account: i64,
    pub(super) device: u8,
    pub(super) registration_id: u16,
    pub(super) token_hash: &'a [u8; 32],
    pub(super) keys: &'a [u8; 32],
    pub(super) name: &'a [u8],
    pub(super) day: i64,
}

impl<'a> NewDevice<'a> {
    pub(super) fn registered(account: i64, new: &'a Registering) -> Self {
        Self {
            account,
            device: new.device,
            registration_id: new.registration_id,
            token_hash: &new.token_hash,
            keys: &new.keys.digest,
            name: &[],
            day: new.day,
        }
    }

    pub(super) fn linked(account: i64, device: u8, new: &'a Linking) -> Self {
        Self {
            account,
            device,
            registration_id: new.registration_id,
            token_hash: &new.token_hash,
            keys: &new.keys.digest,
            name: &new.name,
            day: new.day,
        }
    }
}
