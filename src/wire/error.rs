//! Why bytes are not a message of the type they were taken for (errors-and-limits, K and V rows).

use crate::crypto::KeyError;

/// The bytes are not a message of this type. Nothing was changed; drop them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The protobuf part is malformed.
    #[error("malformed protobuf")]
    Protobuf,
    /// Fewer bytes than the shortest message of this type.
    #[error("{found} bytes, at least {needed} needed")]
    TooShort {
        /// The least that a message of this type has.
        needed: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// More bytes than are read of this type.
    #[error("{found} bytes, at most {limit} are read")]
    TooLong {
        /// The most that is read.
        limit: usize,
        /// Bytes that were there.
        found: usize,
    },
    /// A version older than any that is still read.
    #[error("message version {found} is too old")]
    LegacyVersion {
        /// The version that was written.
        found: u8,
    },
    /// A version that this release does not know.
    #[error("message version {found} is not known: a newer release may read it")]
    UnknownVersion {
        /// The version that was written.
        found: u8,
    },
    /// A field that must be there is not.
    #[error("field {field} is missing")]
    Missing {
        /// Name in the schema.
        field: &'static str,
    },
    /// A field has a value outside its range, or bytes of a wrong length.
    #[error("field {field} has a value that it cannot have")]
    Field {
        /// Name in the schema.
        field: &'static str,
    },
    /// Only one half of the KEM part is there, or none where the version needs both (V6).
    #[error("the KEM prekey id and the KEM ciphertext belong together, and version 4 needs both")]
    KemPart,
    /// A key inside is not a key.
    #[error("field {field}: {source}")]
    Key {
        /// Name in the schema.
        field: &'static str,
        /// What is wrong with it.
        source: KeyError,
    },
}

impl From<prost::DecodeError> for DecodeError {
    /// The library's text is dropped: it may quote the input.
    fn from(_: prost::DecodeError) -> Self {
        Self::Protobuf
    }
}

/// Names the field of a key that was refused.
pub(crate) fn in_field(field: &'static str) -> impl FnOnce(KeyError) -> DecodeError {
    move |source| DecodeError::Key { field, source }
}
