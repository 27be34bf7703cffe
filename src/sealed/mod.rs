//! Sealed sender: an envelope that hides from the relay who sent it (W§13–15).
//!
//! `certificate.rs` says who a sender is, `content.rs` what lies in an envelope and who may be
//! believed. `v1.rs` seals for one recipient and opens, `v2.rs` for many; `sent.rs` is the form of
//! the second that goes to a relay, which splits it. `checker.rs` remembers certificates that held,
//! `sealer.rs` agreements with those met often.
//!
//! A recipient goes three steps: [`open`] the envelope, [`SealedContent::authenticate`] its sender,
//! and give the content to the session with the address that came out.

mod certificate;
mod checker;
mod content;
mod error;
mod remembered;
mod sealer;
mod sent;
mod v1;
mod v2;

pub use certificate::{CertificateError, SenderCertificate, SenderFields, ServerCertificate};
pub use checker::CertificateChecker;
pub use content::{ContentHint, ContentKind, SealedContent};
pub use error::{OpenError, SealError, SelfSend, SplitError};
pub use sealer::Sealer;
pub use sent::{RecipientDevice, SentMessage, SentRecipient};
pub use v1::seal_v1;
pub use v2::{SealedRecipient, seal_v2, seal_v2_multi};

use crate::crypto::curve::SharedSecret;
use crate::crypto::{KeyError, PublicKey};
use crate::identity::IdentityKeyPair;

/// The version of an envelope, from the high half of its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SealedVersion {
    /// For one recipient. Releases long gone wrote 0 for it, which is still taken.
    V1,
    /// For many recipients.
    V2,
}

/// Which version an envelope has, without opening it. The low half of the byte says nothing.
///
/// # Errors
/// [`OpenError::Empty`] or [`OpenError::UnknownVersion`].
pub fn peek_version(envelope: &[u8]) -> Result<SealedVersion, OpenError> {
    match envelope.first().ok_or(OpenError::Empty)? >> 4 {
        0 | 1 => Ok(SealedVersion::V1),
        2 => Ok(SealedVersion::V2),
        found => Err(OpenError::UnknownVersion { found }),
    }
}

/// Opens an envelope with the recipient's identity key. Its sender is not yet believed:
/// [`SealedContent::authenticate`] comes next.
///
/// # Errors
/// [`OpenError`]: empty, of unknown version, malformed, not for this key, changed, or sealed with
/// another key than that of the certificate inside.
pub fn open(envelope: &[u8], recipient: &IdentityKeyPair) -> Result<SealedContent, OpenError> {
    open_with(envelope, recipient, |sender| recipient.private_key().agree(sender))
}

/// [`open`] with the agreement between the recipient's identity key and the sender's given.
fn open_with(
    envelope: &[u8],
    recipient: &IdentityKeyPair,
    agree: impl FnOnce(&PublicKey) -> Result<SharedSecret, KeyError>,
) -> Result<SealedContent, OpenError> {
    let version = peek_version(envelope)?;
    let body = envelope.get(1..).ok_or(OpenError::Empty)?;
    match version {
        SealedVersion::V1 => v1::open_v1(body, recipient, agree),
        SealedVersion::V2 => v2::open_v2(body, recipient, agree),
    }
}
