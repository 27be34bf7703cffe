//! The one mapping from the crate's errors to the kinds of shim.md. A kind is a promise to test
//! programs; the message beside it is for people.

use tuckseal::{
    AddressError, AttachmentError, CertificateError, DecodeError, DecryptError, EncryptError,
    GroupDecryptError, GroupEncryptError, HandshakeError, ImportError, InvalidSignature, KeyError,
    OpenError, RecordError, SealError, SelfSend, SenderKeyError, SplitError, UntrustedIdentity,
};

/// The kinds of shim.md that this release answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    BadRequest,
    Unsupported,
    InvalidKey,
    InvalidSignature,
    InvalidMessage,
    DuplicateMessage,
    LegacyVersion,
    UnknownVersion,
    UntrustedIdentity,
    NoSession,
    NoPrekey,
    StaleSession,
    TooFarAhead,
    InvalidCertificate,
    SelfSend,
    NoSenderKey,
    FingerprintMismatch,
    Limit,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unsupported => "unsupported",
            Self::InvalidKey => "invalid_key",
            Self::InvalidSignature => "invalid_signature",
            Self::InvalidMessage => "invalid_message",
            Self::DuplicateMessage => "duplicate_message",
            Self::LegacyVersion => "legacy_version",
            Self::UnknownVersion => "unknown_version",
            Self::UntrustedIdentity => "untrusted_identity",
            Self::NoSession => "no_session",
            Self::NoPrekey => "no_prekey",
            Self::StaleSession => "stale_session",
            Self::TooFarAhead => "too_far_ahead",
            Self::InvalidCertificate => "invalid_certificate",
            Self::SelfSend => "self_send",
            Self::NoSenderKey => "no_sender_key",
            Self::FingerprintMismatch => "fingerprint_mismatch",
            Self::Limit => "limit",
        }
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) kind: Kind,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(kind: Kind, message: impl ToString) -> Self {
        Self { kind, message: message.to_string() }
    }

    pub(crate) fn bad_request(message: impl ToString) -> Self {
        Self::new(Kind::BadRequest, message)
    }

    /// The certificate of `certificate.*` cannot be parsed, whatever is wrong with it.
    pub(crate) fn certificate(error: DecodeError) -> Self {
        Self::new(Kind::InvalidCertificate, error)
    }

    /// Two safety numbers cannot be compared, for whatever reason.
    pub(crate) fn fingerprint(error: impl ToString) -> Self {
        Self::new(Kind::FingerprintMismatch, error)
    }
}

/// `Refusal: From<error>` by a function from the error to its kind.
macro_rules! kinds {
    ($($error:ty => $kind:expr;)*) => {$(
        impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                let kind: fn(&$error) -> Kind = $kind;
                Self::new(kind(&error), error)
            }
        }
    )*};
}

kinds! {
    AddressError => |_| Kind::BadRequest;
    RecordError => |_| Kind::BadRequest;
    SenderKeyError => |_| Kind::BadRequest;
    KeyError => |_| Kind::InvalidKey;
    InvalidSignature => |_| Kind::InvalidSignature;
    UntrustedIdentity => |_| Kind::UntrustedIdentity;
    SelfSend => |_| Kind::SelfSend;
    CertificateError => |_| Kind::InvalidCertificate;
    DecodeError => decode;
    HandshakeError => handshake;
    EncryptError => encrypt;
    DecryptError => decrypt;
    SealError => seal;
    SplitError => split;
    OpenError => open;
    GroupEncryptError => |_| Kind::Limit;
    GroupDecryptError => group_decrypt;
    AttachmentError => attachment;
    ImportError => import;
}

fn decode(error: &DecodeError) -> Kind {
    match error {
        DecodeError::LegacyVersion { .. } => Kind::LegacyVersion,
        DecodeError::UnknownVersion { .. } => Kind::UnknownVersion,
        DecodeError::Key { .. } => Kind::InvalidKey,
        _ => Kind::InvalidMessage,
    }
}

fn handshake(error: &HandshakeError) -> Kind {
    match error {
        HandshakeError::UntrustedIdentity(_) => Kind::UntrustedIdentity,
        HandshakeError::Signature(_) => Kind::InvalidSignature,
        HandshakeError::Key(_) => Kind::InvalidKey,
        _ => Kind::InvalidMessage,
    }
}

fn encrypt(error: &EncryptError) -> Kind {
    match error {
        EncryptError::NoSession => Kind::NoSession,
        EncryptError::Unanswered => Kind::StaleSession,
        EncryptError::UntrustedIdentity(_) => Kind::UntrustedIdentity,
        EncryptError::Exhausted => Kind::Limit,
        _ => Kind::InvalidMessage,
    }
}

fn decrypt(error: &DecryptError) -> Kind {
    match error {
        DecryptError::TooFarAhead { .. } => Kind::TooFarAhead,
        DecryptError::Duplicate { .. } => Kind::DuplicateMessage,
        DecryptError::NoSession => Kind::NoSession,
        DecryptError::X3dhRefused => Kind::LegacyVersion,
        DecryptError::NoPreKey { .. } => Kind::NoPrekey,
        DecryptError::UntrustedIdentity(_) => Kind::UntrustedIdentity,
        DecryptError::Key(_) => Kind::InvalidKey,
        _ => Kind::InvalidMessage,
    }
}

fn seal(error: &SealError) -> Kind {
    match error {
        SealError::Recipient(_) | SealError::OneRecipient { .. } => Kind::InvalidKey,
        SealError::RegistrationId { .. } => Kind::Limit,
        SealError::NoDevice { .. } | SealError::Excluded => Kind::BadRequest,
        _ => Kind::InvalidMessage,
    }
}

fn split(error: &SplitError) -> Kind {
    match error {
        SplitError::UnknownVersion { .. } => Kind::UnknownVersion,
        _ => Kind::InvalidMessage,
    }
}

fn open(error: &OpenError) -> Kind {
    match error {
        OpenError::UnknownVersion { .. } => Kind::UnknownVersion,
        OpenError::Decode(error) => decode(error),
        OpenError::Key(_) => Kind::InvalidKey,
        OpenError::SenderMismatch | OpenError::Certificate(_) | OpenError::NotAnAccount => {
            Kind::InvalidCertificate
        }
        OpenError::SelfSend(_) => Kind::SelfSend,
        _ => Kind::InvalidMessage,
    }
}

fn attachment(error: &AttachmentError) -> Kind {
    match error {
        AttachmentError::TooLarge { .. } => Kind::Limit,
        _ => Kind::InvalidMessage,
    }
}

fn import(error: &ImportError) -> Kind {
    match error {
        ImportError::ForeignRecord => Kind::InvalidKey,
        ImportError::UntrustedIdentity(_) => Kind::UntrustedIdentity,
        _ => Kind::InvalidMessage,
    }
}

fn group_decrypt(error: &GroupDecryptError) -> Kind {
    match error {
        GroupDecryptError::UnknownChain { .. } => Kind::NoSenderKey,
        GroupDecryptError::Signature(_) => Kind::InvalidSignature,
        GroupDecryptError::Duplicate { .. } => Kind::DuplicateMessage,
        GroupDecryptError::TooFarAhead { .. } => Kind::TooFarAhead,
        GroupDecryptError::Exhausted => Kind::Limit,
        _ => Kind::InvalidMessage,
    }
}
