//! Why an envelope was not sealed, not opened, or not believed (errors-and-limits, X1–X11).

use super::certificate::CertificateError;
use crate::crypto::KeyError;
use crate::wire::DecodeError;

/// An envelope could not be sealed. Nothing was changed; nothing can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// Nothing secret can be agreed with the recipient's identity key.
    #[error("the recipient's identity key: {0}")]
    Recipient(KeyError),
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
    /// Version 2, which this release does not open yet.
    #[error("envelopes of version 2 are not supported yet")]
    VersionTwo,
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
