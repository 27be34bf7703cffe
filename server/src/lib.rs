//! The server of tuckseal: it distributes public keys and relays sealed envelopes.
//!
//! Four layers, each using only those to its right: `http` → `service` → `storage`, `bus`. The API is described
//! in `docs/server-api.md` of the repository. The server has no type that could hold a plaintext, and stores
//! nothing that names the sender of an envelope.
//!
//! Start it as a program (`tuckseal-server --help`), by [`serve`], or in parts: [`Server::bind`], then
//! [`Server::run`].

mod bench;
pub mod bus;
mod check;
pub mod config;
pub mod hook;
mod house;
mod http;
mod https;
mod identity;
mod log;
mod metrics;
mod names;
pub mod push;
mod server;
pub mod service;
pub mod storage;

pub use bench::{BenchArguments, BenchError, run as bench};
pub use check::{Verdict, check};
pub use config::{Arguments, Config, ConfigError};
pub use http::tls::TlsError;
pub use identity::{IdentityError, ServerIdentity, make_keys, new_signer};
pub use log::{LogError, start as start_log};
pub use server::{Extensions, Server, ServerError, serve};
