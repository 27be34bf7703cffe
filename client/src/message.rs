//! What the app handles: messages in and out, contacts.

use tuckseal::content::{AttachmentPointer, Location};
use tuckseal::{DeviceId, IdentityKey, ServiceId, Timestamp};

/// A received message's place in the inbox. Later messages have larger ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// A sent message's place in the outbox. Later messages have larger ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SentId(pub u64);

/// A group, by 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub [u8; 16]);

/// A group that we are or were in.
#[derive(Clone, PartialEq, Eq)]
pub struct Group {
    /// What [`crate::Client::send_to_group`] takes.
    pub id: GroupId,
    /// Its name.
    pub name: String,
    /// Those who are in it; we are among them while we are a member.
    pub members: Vec<ServiceId>,
    /// Whether we are in it.
    pub is_member: bool,
}

impl std::fmt::Debug for Group {
    /// No names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A message that came in. It stays in the inbox until it is acknowledged.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// For [`crate::Client::acknowledge`].
    pub id: MessageId,
    /// The account that sent it, proven. Our own: another device of ours did, and this is for the record.
    pub from: ServiceId,
    /// To whom it was sent, if another device of ours has sent it and not to a group.
    pub sent_to: Option<ServiceId>,
    /// Its device.
    pub device_id: DeviceId,
    /// Another device of ours has handed over what was said before this one was linked: the file is of the app's own format
    /// ([`crate::Client::send_history`]).
    pub is_history: bool,
    /// When it was sent, by the sender's clock.
    pub sent: Timestamp,
    /// How many messages of this sender should stand before it, did not come, and are waited for no more.
    pub missing_before: u64,
    /// The group that it was written to; without, it was written to us.
    pub group: Option<GroupId>,
    /// What they wrote; may be empty beside a file or a place.
    pub text: String,
    /// Files, for [`crate::Client::download`].
    pub attachments: Vec<AttachmentPointer>,
    /// A place.
    pub location: Option<Location>,
}

impl std::fmt::Debug for Message {
    /// Neither sender nor text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where a sent message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SentState {
    /// In the outbox: it will be sent.
    Waiting,
    /// The relay has it.
    Accepted,
    /// A device of the recipient has it. Not told of groups: see [`crate::Event::Receipt`].
    Delivered,
    /// The recipient has read it.
    Read,
    /// It was given up; [`crate::Event::Refused`] said why.
    Refused,
    /// No message has this id.
    Unknown,
}

/// What was counted over the life of a profile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Messages that the relay took by the recipient's access key: it was not told who sends.
    pub sent_anonymously: u64,
    /// Messages that it took by our token, before the recipient's access key was known.
    pub sent_with_token: u64,
}

/// What a person says about a safety number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// They have compared it, and it was the same.
    Verified,
    /// They have not, or take it back.
    Unverified,
}

/// An account that we know.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// What [`crate::Client::send`] takes.
    pub account: ServiceId,
    /// The name under which the server gave us the account.
    pub username: Option<String>,
    /// What they call themselves: a hint, not a proof.
    pub claimed_name: Option<String>,
    /// The identity key that is trusted.
    pub identity: Option<IdentityKey>,
    /// Another identity key that waits for [`crate::Client::accept_identity`] or
    /// [`crate::Client::reject_identity`].
    pub offered: Option<IdentityKey>,
    /// Whether a person has compared the safety number of the trusted key.
    pub verified: bool,
}

impl Contact {
    /// The looked-up name, else the claimed one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.username.as_deref().or(self.claimed_name.as_deref())
    }
}

impl std::fmt::Debug for Contact {
    /// No names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contact").finish_non_exhaustive()
    }
}

/// A device of our account.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnDevice {
    /// 1: the one that has registered the account.
    pub device_id: DeviceId,
    /// What it was called; `None` if it was not, or by something that this account's devices did not write.
    pub name: Option<String>,
    /// The day on which it was linked: days since 1970-01-01, in UTC. 0: the server does not know.
    pub linked_day: u32,
    /// Whether it is the one that asks.
    pub is_this: bool,
}

impl std::fmt::Debug for OwnDevice {
    /// No name.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnDevice").field("device_id", &self.device_id).finish_non_exhaustive()
    }
}
