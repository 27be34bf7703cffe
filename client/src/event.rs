//! What the client tells the app while it runs. Messages are in the inbox too: missing an event loses none.

use std::time::Duration;

use tuckseal::content::{ReceiptKind, Typing};
use tuckseal::{DeviceId, IdentityKey, ServiceId};

use crate::message::{GroupId, Message, MessageId, SentId};
use crate::transport::ServerError;

/// Something happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The server is being called.
    Connecting,
    /// The stream is open.
    Connected,
    /// The stream has ended, or could not be opened.
    Disconnected {
        /// Time to the next attempt.
        retry_in: Duration,
        /// Why.
        cause: ServerError,
    },
    /// All that was waiting at the relay has been read.
    QueueEmpty,
    /// A message is in the inbox.
    Message(Message),
    /// The relay has a message of ours.
    Accepted {
        /// As [`crate::Client::send`] returned it.
        message: SentId,
    },
    /// Nothing waits for the relay any more, receipts and requests included.
    OutboxEmpty,
    /// A message of ours was given up.
    Refused {
        /// As [`crate::Client::send`] returned it.
        message: SentId,
        /// Why.
        reason: Refused,
    },
    /// A peer shows another identity key than the known one: somebody must decide. Until then its
    /// messages are held and ours to it wait.
    IdentityChanged {
        /// The peer.
        account: ServiceId,
        /// The key that is trusted so far.
        known: IdentityKey,
        /// The key that turned up.
        offered: IdentityKey,
        /// Whether a person had compared the safety number of the trusted one.
        was_verified: bool,
    },
    /// Messages of ours arrived, or were read.
    Receipt {
        /// With whom.
        account: ServiceId,
        /// Which of the two.
        kind: ReceiptKind,
        /// As [`crate::Client::send`] returned them.
        messages: Vec<SentId>,
    },
    /// Somebody is writing to us, or has stopped; told while it happens alone.
    Typing {
        /// Who.
        account: ServiceId,
        /// What they do, and in which group if in one. Show a start for some seconds: its end may not come.
        typing: Typing,
    },
    /// A group has other members, another name, or is new: look at [`crate::Client::groups`].
    GroupChanged {
        /// Which.
        group: GroupId,
    },
    /// Another device of this account has turned up: it reads and writes as we do. If nobody of you has linked it,
    /// [`crate::Client::remove_device`].
    DeviceLinked {
        /// Which.
        device_id: DeviceId,
    },
    /// Another device of this account was removed.
    DeviceRemoved {
        /// Which.
        device_id: DeviceId,
    },
    /// Another device of this account has shown these messages of the inbox to a person.
    ReadElsewhere {
        /// Which.
        messages: Vec<MessageId>,
    },
    /// Messages of a sender did not come and are waited for no more; no message stands after them.
    Missing {
        /// Whose.
        account: ServiceId,
        /// How many.
        count: u64,
    },
    /// An envelope or a bundle could not be used. Told at the 1st, 2nd, 4th, 8th … time.
    Failure {
        /// The sender, if it is proven.
        account: Option<ServiceId>,
        /// What was wrong.
        reason: Failure,
        /// How often this has happened with this account.
        count: u64,
    },
    /// A message of this device could not be read, or is missing: it was asked to send it again.
    AskedAgain {
        /// Whose device.
        account: ServiceId,
        /// Which.
        device_id: DeviceId,
    },
    /// A device could not read messages of ours, or misses some: they are sent again.
    SentAgain {
        /// Whose device.
        account: ServiceId,
        /// Which.
        device_id: DeviceId,
        /// How many; 0 when nothing of what it asks for is kept any more.
        messages: u64,
    },
    /// The session with a device was broken and is begun anew. Its identity key is the same.
    SessionReset {
        /// Whose device.
        account: ServiceId,
        /// Which.
        device_id: DeviceId,
    },
    /// This profile is an earlier one than was used last, or a copy of it: a backup was restored. All
    /// sessions are begun anew, and everybody is asked for what has come since.
    Restored,
    /// The relay has dropped envelopes unread: the mailbox was over its limits, or they have expired.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The server does not wake this device where it was registered for push any more: its settings have changed.
    /// Register again, or elsewhere; until then nothing wakes it.
    PushRefused {
        /// HTTP status.
        status: u16,
    },
    /// The app was slow to read events and has missed some. The inbox has all messages.
    Missed {
        /// How many.
        count: u64,
    },
}

/// Why a message of ours was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The server does not know the account any more.
    NoSuchAccount,
    /// The server does not take it: too large, or not understood.
    ByServer {
        /// HTTP status.
        status: u16,
    },
    /// The operator of the server does not take it.
    ByOperator {
        /// A code of the operator's own: a-z 0-9 and -.
        reason: String,
    },
    /// The peer has only an identity key that was rejected.
    IdentityRejected,
}

/// What was wrong with an envelope or a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failure {
    /// It cannot be opened: not for us, changed, or not an envelope at all.
    Sealed = 1,
    /// No valid sender certificate.
    Certificate = 2,
    /// It came from this very device.
    SelfSend = 3,
    /// No session can decrypt it: the sender is asked to send it again.
    Undecryptable = 4,
    /// It was decrypted before.
    Duplicate = 5,
    /// It names a prekey that is not there (any more).
    NoPreKey = 6,
    /// It was decrypted, and is not a content of ours.
    Content = 7,
    /// It is of a kind that this release does not read.
    Unsupported = 8,
    /// It came under a rejected identity key.
    IdentityRejected = 9,
    /// More envelopes were held for an identity decision than there is room for; the oldest went.
    HeldTooMany = 10,
    /// No session can be begun from the bundle of the server.
    Bundle = 11,
    /// A device asked to send again too soon after the last time.
    AskedTooSoon = 12,
    /// Somebody wrote to a group that they, or we, are not in.
    NotAMember = 13,
    /// Somebody wanted to put us into another group, and we have not written to the 200 that they have put us into.
    TooManyGroups = 14,
}
