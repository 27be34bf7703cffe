//! Messages of one-to-one sessions on the wire (W§10.1–10.3, 10.6): their version byte, their
//! kinds, and the file of each.

mod prekey;
mod retry;
mod signal;

pub(crate) use prekey::Envelope;
pub use prekey::{Needs, PreKeySignalMessage};
pub use retry::{DecryptionErrorMessage, PlaintextContent, RetryError};
pub use signal::SignalMessage;
pub(crate) use signal::{Addresses, Header, Identities};

use crate::wire::DecodeError;

/// The version of a session, which is the high half of the first byte of its messages (W§10.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionVersion {
    /// Begun by X3DH: nothing in it resists a quantum computer.
    V3 = 3,
    /// Begun by PQXDH.
    V4 = 4,
}

/// Highest version that this crate writes, in the low half of the first byte.
const HIGHEST: u8 = SessionVersion::V4 as u8;

impl SessionVersion {
    /// `0x34` or `0x44`.
    pub(crate) fn byte(self) -> u8 {
        (self as u8) << 4 | HIGHEST
    }

    /// Looks at the high half alone.
    pub(crate) fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte >> 4 {
            3 => Ok(Self::V3),
            4 => Ok(Self::V4),
            found @ 0..=2 => Err(DecodeError::LegacyVersion { found }),
            found => Err(DecodeError::UnknownVersion { found }),
        }
    }
}

/// What kind of message a ciphertext is. The number is the type code of the wire (W§10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MessageKind {
    /// An ordinary message: a [`SignalMessage`].
    Whisper = 2,
    /// A message that also begins a session: a [`PreKeySignalMessage`].
    PreKey = 3,
}
