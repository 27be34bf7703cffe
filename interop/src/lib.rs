//! The conformance shim: the protocol crate behind JSON lines (docs/spec/shim.md).
//!
//! | shim.md | file |
//! |---|---|
//! | framing | `lines.rs`, `request.rs` |
//! | error kinds | `error.rs` |
//! | a party and its state | `party/` |
//! | operations | `ops/`, one file per group |
//!
//! It uses the public API of `tuckseal` alone: what it can do, an app can do.

mod error;
mod lines;
mod ops;
mod party;
mod request;

pub use lines::serve;
pub use ops::Shim;
