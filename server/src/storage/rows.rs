//! What goes into and out of the store, but for prekeys and linking: plain rows, checked before they come here. No SQL, no rules.

use bytes::Bytes;

use super::KeySet;

/// The public id of an account, 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccountId(pub [u8; 16]);

/// The number of a device and of its mailbox, known to this store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailboxId(pub i64);

/// A node of several that work on one store. Random, new at every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub i64);

/// A connection's claim on a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Larger than that of every connection before; 0 where there is one node alone.
    pub epoch: i64,
    /// Another node that had the mailbox.
    pub displaced: Option<NodeId>,
}

/// How far a mailbox has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxState {
    /// Which.
    pub mailbox: MailboxId,
    /// The last place in use.
    pub end: i64,
    /// Of the connection that has it; 0 where there is one node alone.
    pub epoch: i64,
}

/// An account.
#[derive(Clone)]
pub struct AccountRow {
    /// Its number in this store.
    pub row: i64,
    /// 33 bytes.
    pub identity_key: [u8; 33],
    /// SHA-256 of the access key.
    pub access_hash: [u8; 32],
}

/// A device.
#[derive(Clone)]
pub struct DeviceRow {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The number of its account.
    pub account_row: i64,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// The identity key of its account, 33 bytes.
    pub identity_key: [u8; 33],
}

/// A registration that has passed all checks.
pub struct Registering {
    /// Taken if the name is new.
    pub fresh_account: AccountId,
    /// 1..32 characters.
    pub username: String,
    /// 33 bytes.
    pub identity_key: [u8; 33],
    /// SHA-256 of the access key.
    pub access_hash: [u8; 32],
    /// 1..127.
    pub device: u8,
    /// 1..0x3FFC.
    pub registration_id: u16,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// Both fixed prekeys are there.
    pub keys: KeySet,
    /// Today, in days since 1970: noted with a device that is new.
    pub day: i64,
}

/// What became of a registration.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RegisterAnswer {
    /// Registered, as this account, with this mailbox; connections with an epoch below this one are of the
    /// token of before.
    As(AccountId, MailboxId, i64),
    /// The name belongs to another identity key.
    NameTaken,
}

/// By what right a submission comes.
#[derive(Clone, Copy)]
pub enum Authority {
    /// A device of another account showed its token.
    Token,
    /// This device of the account itself showed its token: it is none of those that get a message.
    Own(u8),
    /// Somebody shows an access key; this is its SHA-256, compared by the store in constant time.
    AccessHash([u8; 32]),
}

impl Authority {
    /// Whether this device of the recipient is the one that sends.
    pub(super) fn is_own(self, device: u8) -> bool {
        matches!(self, Self::Own(own) if own == device)
    }
}

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    /// Envelopes.
    pub messages: i64,
    /// Bytes of their bodies.
    pub bytes: i64,
}

/// One envelope to store.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// 1..127.
    pub device: u8,
    /// As the sender's session knows it.
    pub registration_id: u32,
    /// The sealed envelope, or what stands before the shared part.
    pub content: Bytes,
}

/// What a submission has for one account.
#[derive(Clone)]
pub struct Recipient {
    /// Who it is.
    pub account: AccountId,
    /// Checked in the same transaction.
    pub authority: Authority,
    /// 16 bytes of SHA-256(submission id || recipient).
    pub dedup: [u8; 16],
    /// Exactly one for each device of the recipient (but the one that sends), or the answer is a mismatch.
    pub messages: Vec<NewMessage>,
}

/// A submission.
#[derive(Clone)]
pub struct Append {
    /// Each is stored for or refused on its own.
    pub recipients: Vec<Recipient>,
    /// The end of all envelopes, stored once. Empty if they have none in common.
    pub shared: Bytes,
    /// The clock, in milliseconds.
    pub now_ms: i64,
    /// When the envelopes expire.
    pub expires_ms: i64,
    /// Who set that.
    pub life: Life,
    /// Of each mailbox.
    pub quota: Quota,
}

/// How long an envelope is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// As long as the server keeps any. Nobody said that it might be lost: the device is told when it is.
    Full,
    /// Shorter, as its sender wants it: it ends without a word.
    Short,
}

/// What became of a submission for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppendAnswer {
    /// Stored, in the order of the messages.
    Stored(Vec<Placed>),
    /// Stored before, by the same submission id.
    Repeated,
    /// The devices are not those of the account. Nothing was stored.
    Mismatch(Mismatch),
    /// The access key is not the account's, or there is no such account. Nothing was stored.
    Unauthorised,
    /// There is no such account, and the caller showed a token. Nothing was stored.
    UnknownAccount,
}

/// Where an envelope went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The device's mailbox.
    pub mailbox: MailboxId,
    /// Its place there, from 1, without holes.
    pub seq: i64,
    /// How many older ones were dropped to make room.
    pub dropped: u64,
    /// The node that the device is connected to, as of this transaction. None where there is one node alone.
    pub node: Option<NodeId>,
}

/// Where the devices of a recipient are, in the order of the messages, or why it gets none.
pub type Located = Result<Vec<Location>, AppendAnswer>;

/// Where a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// The node that it is connected to. None where there is one node alone.
    pub node: Option<NodeId>,
}

/// How the devices of a submission differ from those of the account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mismatch {
    /// Devices without a message.
    pub missing: Vec<u8>,
    /// Messages without a device.
    pub extra: Vec<u8>,
    /// Devices that were registered anew.
    pub stale: Vec<u8>,
}

/// A device that is registered for push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushRow {
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// As it was registered.
    pub registration: Bytes,
    /// When the oldest of its envelopes came, in milliseconds; none if there is nothing to fetch.
    pub oldest_ms: Option<i64>,
    /// The node that it is connected to. None where there is one node alone.
    pub node: Option<NodeId>,
}

/// A report whose token was found good. Days are counted since 1970.
#[derive(Clone, Copy)]
pub struct Reporting {
    /// The one reported.
    pub account: AccountId,
    /// The number of the token.
    pub token: [u8; 16],
    /// Of the report.
    pub day: i64,
    /// The token is worth nothing from then on.
    pub expires_day: i64,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportAnswer {
    /// So many reports of this account on this day, with this one.
    Counted(u64),
    /// The token has counted before.
    Repeated,
    /// There is no such account.
    UnknownAccount,
}

/// How much to read at once.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimit {
    /// Envelopes.
    pub messages: usize,
    /// Bytes of their bodies; the first is read whatever its size.
    pub bytes: usize,
}

/// An envelope in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEnvelope {
    /// Its place.
    pub seq: i64,
    /// When it was accepted, in milliseconds.
    pub received_ms: i64,
    /// The sealed envelope, or what stands before the shared part.
    pub content: Bytes,
    /// The end of the envelope that it shares with others; empty if there is none.
    pub shared: Bytes,
}

impl StoredEnvelope {
    /// Bytes of the whole envelope.
    #[must_use]
    pub fn size(&self) -> usize {
        self.content.len().saturating_add(self.shared.len())
    }

    /// The whole envelope.
    #[must_use]
    pub fn whole(self) -> Bytes {
        if self.shared.is_empty() {
            return self.content;
        }
        [self.content, self.shared].concat().into()
    }
}

/// A part of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// In order.
    pub envelopes: Vec<StoredEnvelope>,
    /// The last place that this reading covers: nothing that was stored at or before it comes later.
    pub covers: i64,
    /// The last place in use when it was read.
    pub end: i64,
    /// Envelopes dropped unread that the device has not been told of.
    pub dropped: u64,
}
