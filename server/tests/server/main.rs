//! The server from outside: real sockets, a real file, one test binary. Each module is named for what it asks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod accounts;
mod attachments;
mod attachments_bucket;
mod attachments_tus;
mod chaos;
mod chaos_long;
mod cluster;
mod crash;
mod deploy;
mod devices;
mod drain;
mod ephemeral;
mod hooks;
mod hostile;
mod house;
mod keys;
mod multi;
mod nodes;
mod openapi;
mod operating;
mod peers;
mod pressure;
mod privacy;
mod push;
mod push_vendors;
mod read_only;
mod relay;
mod reports;
mod sizes;
mod store;
mod store_postgres;
mod store_postgres_faults;
mod stores;
mod streams;
mod takes;
mod window;
mod world;
