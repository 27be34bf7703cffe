//! Structs generated from `proto/` and checked in, so that nobody needs protoc or a build script.
//! `tests/wire.rs` regenerates and compares them. Only the service messages are public: client and
//! server speak them; the others never leave the file of the type that they encode. Those of `spqr` and
//! `storage` are what others store, for the import; they and `link` wipe their secrets.

#![allow(missing_docs, unreachable_pub, reason = "generated")]
#![allow(clippy::all, rustdoc::all, reason = "generated")]

#[rustfmt::skip]
pub(crate) mod content;
mod error;
#[rustfmt::skip]
pub(crate) mod fingerprint;
#[rustfmt::skip]
pub(crate) mod group;
#[rustfmt::skip]
pub(crate) mod link;
#[rustfmt::skip]
pub(crate) mod message;
mod redacted;
#[rustfmt::skip]
pub(crate) mod sealed_sender;
#[rustfmt::skip]
pub mod service;
#[rustfmt::skip]
pub(crate) mod spqr;
#[rustfmt::skip]
pub(crate) mod storage;

pub use error::DecodeError;
pub(crate) use error::in_field;
