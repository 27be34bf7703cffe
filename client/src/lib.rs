//! A messaging client that loses nothing: a message that [`Client::send`] returned for arrives exactly
//! once, in order per sender, whatever crashes.
//!
//! Sending: ratchet, ciphertext and outbox row are one commit, and the same ciphertext is submitted until
//! the relay has it. Receiving: ratchet, inbox row, consumed prekeys and the envelope's id are one commit,
//! and only then is the envelope acknowledged. A changed identity key is an event that somebody must
//! decide on. The keys never leave the profile's folder, which is yours to protect.
//!
//! ```no_run
//! use std::path::Path;
//! use tuckseal_client::{Client, Event, Registration};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let registration = Registration {
//!     server: "http://127.0.0.1:8080".into(),
//!     name: "alice".into(),
//!     trust_root: None, // an app for one server ships its trust root
//!     ca: None,         // and its authority, if that is a private one
//! };
//! let client = Client::register(Path::new("alice"), registration).await?;
//! let mut events = client.events();
//! let running = client.clone();
//! tokio::spawn(async move { running.run(std::future::pending()).await });
//!
//! let bob = client.lookup("bob").await?;
//! client.send(bob, "On disk when this returns.").await?;
//! while let Some(event) = events.recv().await {
//!     if let Event::Message(_) = event {
//!         for message in client.inbox().await? {
//!             println!("{}", message.text); // store it, then
//!             client.acknowledge(message.id).await?;
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! An account may have several devices, each with a profile of its own: [`LinkRequest`] shows a code on the new one,
//! [`Client::offer_link`] answers it on one that is there, [`Client::link`] takes the answer. What one sends, the others get as a
//! [`Message`] from our own account; what they read, they tell each other.
//!
//! An app that the system does not keep running is woken: [`Client::register_push`] tells the server where (Web Push,
//! UnifiedPush, APNs, FCM), and when a push comes, which says nothing, [`Client::wake`] fetches what waits within the
//! time that a background handler has. `examples/woken_by_push.rs` is such a handler.

#[cfg(test)]
extern crate self as tuckseal_client;

mod backoff;
mod client;
#[cfg(test)]
mod crash;
mod engine;
mod error;
mod event;
mod groups;
mod link;
mod message;
mod own_devices;
mod push;
mod register;
mod report;
mod shell;
#[cfg(test)]
#[path = "../tests/stage/mod.rs"]
mod stage;
mod store;
mod transfer;
mod transport;
mod wake;
mod work;

pub use client::{Client, Events};
pub use engine::{Receipts, Settings};
pub use error::{
    DeviceError, GroupError, IdentityError, LinkError, LookupError, PushError, RegisterError,
    ReportError, RunError, SendError, TransferError,
};
pub use event::{Event, Failure, Refused};
pub use link::{LinkRequest, OfferedLink};
pub use message::{
    Contact, Group, GroupId, Message, MessageId, OwnDevice, SentId, SentState, Statistics,
    Verification,
};
pub use push::{PushOffer, PushService, PushTarget, WebSubscription};
pub use register::Registration;
pub use store::ProfileError;
pub use transport::{Ca, CaError, ServerError};
pub use wake::{WakeEnd, Woken};
