//! The rules: who may do what, and how often. No SQL and no HTTP here.

pub mod accounts;
pub mod attachments;
pub mod certificates;
mod circuit;
mod claims;
pub mod delivery;
pub mod devices;
mod envelope_id;
mod ephemeral;
mod error;
pub mod gate;
pub mod hooks;
mod inbound;
mod intake;
pub mod keys;
pub mod limits;
mod linking;
mod loops;
pub mod multi;
mod pressure;
pub mod push;
pub mod relay;
pub mod reports;
mod waking;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use accounts::Accounts;
use attachments::Attachments;
use certificates::Certificates;
use devices::Devices;
pub use error::ServiceError;

use gate::RegistrationGate;
use hooks::Hooks;
use keys::Keys;
use push::Push;
use relay::Relay;
use reports::Reports;

use crate::bus::Bus;
use crate::config::Limits;
use crate::identity::ServerIdentity;
use crate::push::Senders;
use crate::storage::{AttachmentStore, NodeId, Store};

/// All services of one node.
pub struct Services {
    /// Registration, tokens, names.
    pub accounts: Accounts,
    /// The devices of accounts.
    pub devices: Devices,
    /// Prekeys.
    pub keys: Keys,
    /// Mailboxes.
    pub relay: Relay,
    /// Waking devices that are away.
    pub push: Push,
    /// Attachments.
    pub attachments: Attachments,
    /// Sender certificates.
    pub certificates: Certificates,
    /// Reports of spam.
    pub reports: Reports,
    /// The operator's own check.
    pub hooks: Hooks,
    /// What the node may be asked to keep.
    pub limits: Limits,
}

impl Services {
    /// Puts the services on a store and a bus.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        attachments: AttachmentStore,
        (bus, node): (Arc<dyn Bus>, NodeId),
        (senders, gate, hooks): (Senders, Arc<dyn RegistrationGate>, Hooks),
        identity: ServerIdentity,
        limits: Limits,
    ) -> Self {
        let push = Push::new(Arc::clone(&store), Arc::clone(&bus), senders, &limits);
        Self {
            accounts: Accounts::new(
                (Arc::clone(&store), Arc::clone(&bus)),
                (gate, hooks.clone()),
                &identity,
                &limits,
            ),
            devices: Devices::new(Arc::clone(&store), Arc::clone(&bus), &limits),
            keys: Keys::new(Arc::clone(&store), Arc::clone(&bus), push.clone(), &limits),
            reports: Reports::new(Arc::clone(&store), hooks.clone(), &identity, &limits),
            relay: Relay::new(store, (bus, node), push.clone(), &identity, &limits),
            attachments: Attachments::new(attachments, hooks.clone(), &identity, &limits),
            certificates: Certificates::new(identity, push.offer(), &limits),
            push,
            hooks,
            limits,
        }
    }
}

/// Milliseconds since 1970; 0 if the clock stands before that.
#[must_use]
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Days since 1970, in UTC.
fn today() -> i64 {
    now_ms() / DAY_MS
}

/// Seconds as milliseconds.
fn millis(secs: u64) -> i64 {
    i64::try_from(secs.saturating_mul(1000)).unwrap_or(i64::MAX)
}
