//! Why an envelope was not sealed, not opened, or not believed or not split (errors-and-limits,
//! X1–X16).

use super::certificate::CertificateError;
use crate::crypto::KeyError;
use crate::padding::EnvelopeTooLong;
use crate::wire::DecodeError;

/// An envelope could not be sealed. Nothing was changed; nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nothing secret can be agreed with the recipient's identity key.
    #[error("the recipient's identity key: {0}")]
    Recipient(KeyError),
    /// Nothing secret can be agreed with the identity key of one of many recipients.
    #[error("the identity key of recipient {place}: {source}")]
    OneRecipient {
        /// Its place in the list, from 0.
        place: usize,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// X13: a registration id does not fit into the envelope's 14 bits.
    #[error("recipient {place} has registration id {found}, of which the envelope holds 14 bits")]
    RegistrationId {
        /// Its place in the list, from 0.
        place: usize,
        /// The registration id.
        found: u32,
    },
    /// A recipient without a device: nobody could open what was sealed for it.
    #[error("recipient {place} has no device")]
    NoDevice {
        /// Its place in the list, from 0.
        place: usize,
    },
    /// A recipient that is excluded at the same time, or excluded twice: no relay would split that.
    #[error("somebody is excluded twice, or a recipient and excluded")]
    Excluded,
}

/// A sent message is malformed, or not to be split this way. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// No bytes at all.
    #[error("the sent message is empty")]
    Empty,
    /// Neither of the two forms of version 2.
    #[error("0x{found:02x} is no version of a sent message")]
    UnknownVersion {
        /// The first byte.
        found: u8,
    },
    /// It ends before its recipients and the shared key do.
    #[error("the sent message is cut off")]
    Truncated,
    /// A value that cannot be.
    #[error("{field} of a sent message has a value that it cannot have")]
    Field {
        /// Which part.
        field: &'static str,
    },
    /// A recipient that is excluded at the same time, or excluded twice.
    #[error("somebody is excluded twice, or a recipient and excluded")]
    Excluded,
    /// X16: asked for the only recipient of a message that has another number of them.
    #[error("the sent message has {found} recipients, not one")]
    NotOne {
        /// How many it has.
        found: usize,
    },
    /// What each recipient would receive is too long for an envelope that is padded.
    #[error(transparent)]
    TooLong(#[from] EnvelopeTooLong),
}

/// An envelope was not opened, or its sender is not believed. Nothing was changed; drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No bytes at all.
    #[error("the envelope is empty")]
    Empty,
    /// A version that no release writes.
    #[error("envelope version {found} is not known: a newer release may read it")]
    UnknownVersion {
        /// High half of the first byte.
        found: u8,
    },
    /// The envelope, or what lies in it, is malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A key of the envelope is no key, or nothing can be agreed with it.
    #[error("a key of the envelope: {0}")]
    Key(KeyError),
    /// Not sealed for this identity key, or changed on its way.
    #[error("the envelope was not sealed for this identity key, or it was changed on its way")]
    Unauthenticated,
    /// Sealed with another identity key than that of the certificate inside.
    #[error(
        "the certificate in the envelope belongs to another identity key than the one that sealed it"
    )]
    SenderMismatch,
    /// The certificate inside is not acceptable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Sent by this very device.
    #[error(transparent)]
    SelfSend(#[from] SelfSend),
    /// A valid certificate whose sender is not named by an account id.
    #[error("the sender certificate does not name an account id")]
    NotAnAccount,
}

/// This very device sent the message (X11). It came back by mistake; drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was sent by this very device")]
pub struct SelfSend;
