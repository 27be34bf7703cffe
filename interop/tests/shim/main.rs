//! The contract of docs/spec/shim.md, tried from outside: requests in, answers out. The
//! conversations with foreign peers are in `tests/libsignal.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod attachments;
mod broken;
mod contract;
mod door;
mod fingerprints;
mod groups;
mod imports;
mod junk;
mod repeat;
mod sealed;
mod sessions;
mod signatures;
