//! The ratchet of a session: the classic half (`double.rs`, with the seeds of `skipped.rs`), the
//! post-quantum half (`pq.rs`), and both together (`triple.rs`). All plan first and commit last.

pub(crate) mod double;
pub(crate) mod pq;
pub(crate) mod skipped;
pub(crate) mod triple;

pub(crate) use double::{JumpLimit, MAX_JUMP, RatchetError};
pub(crate) use pq::PqRatchet;
pub(crate) use triple::{RecvRefused, TripleRatchet};
