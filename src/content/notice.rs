//! What devices tell each other without a person writing it: receipts, typing, and what one's own
//! other device did.

use super::data::service_id;
use super::{AttachmentPointer, Data, at_most, exact};
use crate::address::{ServiceId, Timestamp};
use crate::identity::IdentityKey;
use crate::wire::DecodeError;
use crate::wire::content as stored;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use stored::sync_message::What;

/// More messages than one receipt has to speak of.
const MAX_MESSAGES: usize = 1000;
/// Accounts that one content tells of.
const MAX_CONTACTS: usize = 100;

/// "These messages of yours arrived", or were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Which of the two.
    pub kind: ReceiptKind,
    /// [`super::Content::timestamp`] of the messages: at most 1000.
    pub timestamps: Vec<Timestamp>,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiptKind {
    /// A device has it, safely stored.
    Delivered = 0,
    /// A person has seen it.
    Read = 1,
}

/// The sender is writing a message, or has stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Typing {
    /// Is writing; show it for some seconds.
    Started {
        /// To this group, if to one.
        group: Option<[u8; 16]>,
    },
    /// Has stopped without sending.
    Stopped {
        /// In this group, if in one.
        group: Option<[u8; 16]>,
    },
}

/// What another device of the same account did. Believe it from one's own account alone.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Sync {
    /// It sent a message.
    Sent(Transcript),
    /// It showed these messages to a person: at most 1000.
    Read(Vec<ReadMark>),
    /// It knows these accounts: at most 100.
    Contacts(Vec<Contact>),
    /// It hands over what was said before, in a file of the app's own format.
    History(AttachmentPointer),
}

/// A message that another device of the same account sent.
#[derive(Clone, PartialEq, Debug)]
pub struct Transcript {
    /// To whom; `None` for a message to a group.
    pub to: Option<ServiceId>,
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// What it said.
    pub data: Data,
}

/// What another device of the same account knows of somebody.
#[derive(Clone, PartialEq, Eq)]
pub struct Contact {
    /// Whom.
    pub account: ServiceId,
    /// The name under which the server gave it the account.
    pub username: Option<String>,
    /// The identity key that is trusted.
    pub identity: Option<IdentityKey>,
    /// Whether a person has compared the safety number of that key.
    pub verified: bool,
    /// The account's access key.
    pub access_key: Option<[u8; 16]>,
}

impl core::fmt::Debug for Contact {
    /// No names and no keys.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Contact").finish_non_exhaustive()
    }
}

/// A message that was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadMark {
    /// Who had sent it.
    pub sender: ServiceId,
    /// Its timestamp.
    pub timestamp: Timestamp,
}

impl Receipt {
    /// `None` for a kind that is not known.
    pub(super) fn read(receipt: stored::Receipt) -> Result<Option<Self>, DecodeError> {
        let kind = match receipt.kind {
            0 => ReceiptKind::Delivered,
            1 => ReceiptKind::Read,
            _ => return Ok(None),
        };
        let timestamps = at_most(MAX_MESSAGES, receipt.timestamps, "timestamps")?;
        let timestamps = timestamps.into_iter().map(Timestamp::from_millis).collect();
        Ok(Some(Self { kind, timestamps }))
    }
}

impl From<&Receipt> for stored::Receipt {
    fn from(receipt: &Receipt) -> Self {
        let timestamps = receipt.timestamps.iter().map(|it| it.as_millis()).collect();
        Self { kind: receipt.kind as u32, timestamps }
    }
}

impl From<Typing> for stored::Typing {
    fn from(typing: Typing) -> Self {
        let (stopped, group) = match typing {
            Typing::Started { group } => (false, group),
            Typing::Stopped { group } => (true, group),
        };
        let group_id = group.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(&id));
        Self { stopped, group_id }
    }
}

impl TryFrom<stored::Typing> for Typing {
    type Error = DecodeError;

    fn try_from(typing: stored::Typing) -> Result<Self, DecodeError> {
        let group = match typing.group_id.is_empty() {
            true => None,
            false => Some(exact(&typing.group_id, "group_id")?),
        };
        Ok(if typing.stopped { Self::Stopped { group } } else { Self::Started { group } })
    }
}

impl Sync {
    /// `None` for what is not known.
    pub(super) fn read(sync: stored::SyncMessage) -> Result<Option<Self>, DecodeError> {
        Ok(match sync.what {
            None => None,
            Some(What::Sent(sent)) => Some(Self::Sent(sent.try_into()?)),
            Some(What::Read(read)) => {
                let marks = at_most(MAX_MESSAGES, read.marks, "marks")?;
                let marks = marks.iter().map(ReadMark::read).collect::<Result<_, _>>()?;
                Some(Self::Read(marks))
            }
            Some(What::Contacts(contacts)) => {
                let contacts = at_most(MAX_CONTACTS, contacts.contacts, "contacts")?;
                let contacts = contacts.into_iter().map(Contact::try_from);
                Some(Self::Contacts(contacts.collect::<Result<_, _>>()?))
            }
            Some(What::History(history)) => {
                let archive = history.archive.ok_or(DecodeError::Missing { field: "archive" })?;
                Some(Self::History(archive.try_into()?))
            }
        })
    }
}

impl TryFrom<stored::Sent> for Transcript {
    type Error = DecodeError;

    fn try_from(sent: stored::Sent) -> Result<Self, DecodeError> {
        let to = match sent.to.is_empty() {
            true => None,
            false => Some(service_id(&sent.to, "to")?),
        };
        let message = sent.message.ok_or(DecodeError::Missing { field: "message" })?;
        let timestamp = Timestamp::from_millis(sent.timestamp);
        Ok(Self { to, timestamp, data: message.try_into()? })
    }
}

impl TryFrom<stored::Contact> for Contact {
    type Error = DecodeError;

    fn try_from(contact: stored::Contact) -> Result<Self, DecodeError> {
        let some = |bytes: Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
        let identity = some(contact.identity_key).map(|key| {
            IdentityKey::decode(&key).map_err(|_| DecodeError::Field { field: "identity_key" })
        });
        let access_key = some(contact.access_key).map(|key| exact(&key, "access_key"));
        Ok(Self {
            account: service_id(&contact.account, "account")?,
            username: Some(contact.username).filter(|name| !name.is_empty()),
            identity: identity.transpose()?,
            verified: contact.verified,
            access_key: access_key.transpose()?,
        })
    }
}

impl From<&Contact> for stored::Contact {
    fn from(contact: &Contact) -> Self {
        let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
        Self {
            account: contact.account.to_binary().into(),
            username: contact.username.clone().unwrap_or_default(),
            identity_key: contact.identity.map(|key| bytes(&key.serialize())).unwrap_or_default(),
            verified: contact.verified,
            access_key: contact.access_key.map(|key| bytes(&key)).unwrap_or_default(),
        }
    }
}

impl ReadMark {
    fn read(mark: &stored::ReadMark) -> Result<Self, DecodeError> {
        let sender = service_id(&mark.sender, "sender")?;
        Ok(Self { sender, timestamp: Timestamp::from_millis(mark.timestamp) })
    }
}

impl From<&Sync> for stored::SyncMessage {
    fn from(sync: &Sync) -> Self {
        let what = match sync {
            Sync::Sent(sent) => What::Sent(stored::Sent {
                to: sent.to.map_or_else(Bytes::new, |to| to.to_binary().into()),
                timestamp: sent.timestamp.as_millis(),
                message: Some((&sent.data).into()),
            }),
            Sync::Read(marks) => {
                let stored = |mark: &ReadMark| stored::ReadMark {
                    sender: mark.sender.to_binary().into(),
                    timestamp: mark.timestamp.as_millis(),
                };
                What::Read(stored::Read { marks: marks.iter().map(stored).collect() })
            }
            Sync::Contacts(contacts) => {
                let contacts = contacts.iter().map(stored::Contact::from).collect();
                What::Contacts(stored::Contacts { contacts })
            }
            Sync::History(archive) => {
                What::History(stored::History { archive: Some(archive.into()) })
            }
        };
        Self { what: Some(what) }
    }
}
