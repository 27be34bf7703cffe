//! The ratchet of a session: the classic half (`double.rs`, with the seeds of `skipped.rs`
//! and what an import brings, `ready.rs`), and
//! both halves together (`triple.rs`; the post-quantum one is `spqr/`). All plan first and commit last.

pub(crate) mod double;
pub(crate) mod ready;
pub(crate) mod skipped;
pub(crate) mod triple;

pub(crate) use double::{JumpLimit, RatchetError};
pub(crate) use triple::{Refused, TripleRatchet};
