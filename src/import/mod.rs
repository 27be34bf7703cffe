//! Stored state of libsignal (W§17), taken over: one way in, nothing of this is ever written. An app
//! moves its sessions, prekeys and sender keys record by record, and nobody has to begin anew.
//!
//! `session.rs` has session records, `keys.rs` identity and prekeys, `group.rs` sender keys; the
//! post-quantum ratchet inside a session is `spqr/import.rs`' concern. All is checked here, once.

mod group;
mod keys;
mod session;

pub use session::ImportedSessions;

use crate::crypto::{KeyPair, PrivateKey, PublicKey};
use crate::identity::UntrustedIdentity;

/// A stored record of libsignal cannot be taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is not a record of this kind, or damaged.
    #[error("the record cannot be read, or is damaged: leave it out, and begin anew with its peer")]
    Damaged,
    /// The session was made with another identity key of ours.
    #[error("the record belongs to another identity of ours")]
    ForeignRecord,
    /// The peer's identity in it is not the trusted one.
    #[error(transparent)]
    UntrustedIdentity(#[from] UntrustedIdentity),
}

/// A pair whose halves are stored side by side: they must belong together.
fn pair(private: &[u8], public: &[u8]) -> Option<KeyPair> {
    let pair = KeyPair::from(PrivateKey::from_bytes(private).ok()?);
    (*pair.public() == PublicKey::decode(public).ok()?).then_some(pair)
}
