//! Sessions (W§11): the record kept for each remote device (`record.rs`, stored by `codec.rs`), how
//! a session begins (`establish.rs`) and how its messages are made and read (`cipher.rs`).
//!
//! There are no store traits: the caller passes the record in, and saves it after the call. A call
//! that returns an error has changed nothing.

mod cipher;
mod codec;
mod establish;
mod record;

pub(crate) use codec::encode_session;
pub(crate) use record::{Archived, MAX_ARCHIVED, Pending, Session};

pub use cipher::{DecryptError, Decrypted, EncryptError, Encrypted};
pub use codec::RecordError;
pub use establish::{AgreementPolicy, BaseKeyUse, Consumed, HandshakeError, PreKeyKind, PreKeys};
pub use record::{SessionInfo, SessionRecord};
