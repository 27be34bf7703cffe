//! The mailbox side of a stream: what a device gets, and what it acknowledges.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::ws::Message;
use bytes::Bytes;
use tuckseal::service::{Delivery as DeliveryFrame, Ephemeral, Gap, QueueEmpty, server_frame};

use super::socket::Socket;
use super::{End, behind};
use crate::bus::{Ended, Passing, Subscription, Wakes};
use crate::http::App;
use crate::metrics;
use crate::service::ServiceError;
use crate::service::accounts::Caller;
use crate::service::delivery::Delivery;
use crate::storage::StoredEnvelope;

/// Envelopes of one delivery, and bytes after which no further one is added.
const DELIVERY_MESSAGES: usize = 64;
const DELIVERY_BYTES: usize = 64 * 1024;
/// Another stream of the same device was opened.
const DISPLACED: End = End::Close(4409, "another stream of this device was opened");
/// The device is none of its account any more.
const REMOVED: End =
    End::Close(4410, "this device was removed from its account; it cannot connect again");

pub(super) struct Mailbox {
    app: Arc<App>,
    caller: Caller,
    wakes: Subscription,
    delivery: Delivery,
    epoch: i64,
    /// Dropped envelopes that the device was told of and has not confirmed by a pong.
    told: u64,
    hole_since: Option<Instant>,
}

/// The device may have been removed since its token was looked at.
fn gone_or_behind(error: ServiceError) -> End {
    match error {
        ServiceError::NotFound(_) => REMOVED,
        error => behind(error),
    }
}

fn displaced() -> End {
    metrics::DISPLACED.add(1);
    DISPLACED
}

/// What comes in for the mailbox. Never ready without one.
pub(super) async fn wakes(mailbox: Option<&Mailbox>) -> Wakes {
    match mailbox {
        Some(mailbox) => mailbox.wakes.next().await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnlyIfLow {
    Yes,
    No,
}

impl Mailbox {
    pub(super) fn new(app: Arc<App>, caller: Caller) -> Self {
        // The place is taken before the mailbox is read: what is stored from now on is handed over.
        let wakes = app.services.relay.subscribe(caller.mailbox);
        let delivery = app.services.relay.delivery(caller.mailbox);
        Self { app, caller, wakes, delivery, epoch: 0, told: 0, hole_since: None }
    }

    pub(super) async fn begin(&mut self, socket: &mut Socket) -> Result<(), End> {
        let relay = &self.app.services.relay;
        // Claimed before the mailbox is read: a submission is either read or placed with this node.
        let claimed =
            relay.claim(self.caller.mailbox, &self.wakes).await.map_err(gone_or_behind)?;
        self.epoch = claimed.ok_or_else(displaced)?;
        relay.settle().await.map_err(behind)?;
        self.tell_keys(OnlyIfLow::Yes, socket).await
    }

    /// The wake-ups that wait for it, for the simulation.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> crate::bus::peek::Peek {
        self.wakes.peek()
    }

    /// All that decides what it does next but for its wake-ups.
    #[cfg(test)]
    pub(super) fn state(&self) -> impl std::hash::Hash + use<> {
        (self.epoch, self.told, self.hole_since.is_some(), self.delivery.state())
    }

    pub(super) async fn release(self) {
        self.app.services.relay.delivered(self.caller.mailbox, &self.delivery);
        self.app.services.relay.release(self.caller.mailbox, self.epoch).await;
    }

    /// Since when envelopes in memory wait for one before them.
    pub(super) fn hole_since(&self) -> Option<Instant> {
        self.hole_since
    }

    pub(super) fn look(&mut self) {
        self.delivery.look();
    }

    /// Sends all that may be sent now.
    pub(super) async fn deliver(&mut self, socket: &mut Socket) -> Result<(), End> {
        while let Some((cursor, limit)) = self.delivery.reading() {
            let relay = &self.app.services.relay;
            let backlog = relay.read(self.caller.mailbox, cursor, limit).await.map_err(behind)?;
            if backlog.dropped > self.told {
                self.tell_gap(backlog.dropped - self.told, socket).await?;
            }
            let due = self.delivery.read(backlog);
            self.send_envelopes(due, socket).await?;
        }
        let due = self.delivery.due();
        self.send_envelopes(due, socket).await?;
        self.wakes.seen(self.delivery.cursor());
        if self.delivery.opened() {
            socket.send(server_frame::Body::QueueEmpty(QueueEmpty {})).await?;
        }
        self.hole_since = match (self.delivery.has_hole(), self.hole_since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
        Ok(())
    }

    async fn send_envelopes(
        &mut self,
        envelopes: Vec<StoredEnvelope>,
        socket: &mut Socket,
    ) -> Result<(), End> {
        let (mut frame, mut bytes) = (DeliveryFrame::default(), 0);
        for envelope in envelopes {
            let size = envelope.size();
            let full = frame.envelopes.len() == DELIVERY_MESSAGES || bytes + size > DELIVERY_BYTES;
            if full && !frame.envelopes.is_empty() {
                socket.send(server_frame::Body::Delivery(std::mem::take(&mut frame))).await?;
                bytes = 0;
            }
            bytes += size;
            metrics::DELIVERED.add(1);
            frame.envelopes.push(self.app.services.relay.envelope(self.caller.mailbox, envelope));
        }
        if frame.envelopes.is_empty() {
            Ok(())
        } else {
            socket.send(server_frame::Body::Delivery(frame)).await
        }
    }

    /// Tells of dropped envelopes. The ping behind it is answered by a client that has got both.
    async fn tell_gap(&mut self, dropped: u64, socket: &mut Socket) -> Result<(), End> {
        self.told += dropped;
        socket.send(server_frame::Body::Gap(Gap { dropped })).await?;
        socket.write(Message::Ping(Bytes::copy_from_slice(&self.told.to_be_bytes()))).await
    }

    async fn tell_keys(&mut self, only_if_low: OnlyIfLow, socket: &mut Socket) -> Result<(), End> {
        let keys = &self.app.services.keys;
        let counts = keys.counts(&self.caller).await.map_err(gone_or_behind)?;
        if only_if_low == OnlyIfLow::No || keys.is_low(&counts) {
            socket.send(server_frame::Body::KeyCounts(counts)).await?;
        }
        Ok(())
    }

    pub(super) async fn woken(&mut self, wakes: Wakes, socket: &mut Socket) -> Result<(), End> {
        match wakes.ended {
            Some(Ended::Displaced) => return Err(displaced()),
            Some(Ended::Removed) => return Err(REMOVED),
            None => {}
        }
        if wakes.look {
            self.delivery.look();
        }
        wakes.stored.into_iter().for_each(|envelope| self.delivery.offer(envelope));
        for passing in wakes.passing {
            self.pass_on(passing, socket).await?;
        }
        if wakes.keys { self.tell_keys(OnlyIfLow::No, socket).await } else { Ok(()) }
    }

    /// Unless it is too late.
    async fn pass_on(&mut self, passing: Passing, socket: &mut Socket) -> Result<(), End> {
        let Passing { content, received_ms } = passing;
        if self.app.services.relay.is_stale(received_ms) {
            metrics::EPHEMERAL_LOST.add(1);
            return Ok(());
        }
        let server_timestamp_ms = received_ms.unsigned_abs();
        socket.send(server_frame::Body::Ephemeral(Ephemeral { content, server_timestamp_ms })).await
    }

    pub(super) fn acknowledged(&mut self, ids: &[Bytes]) -> Result<(), ServiceError> {
        let relay = &self.app.services.relay;
        relay.acknowledge(self.caller.mailbox, ids, &mut self.delivery)
    }

    /// A pong with a count confirms a gap.
    pub(super) async fn pong(&mut self, payload: &[u8]) -> Result<(), End> {
        let Ok(count) = <[u8; 8]>::try_from(payload).map(u64::from_be_bytes) else { return Ok(()) };
        let confirmed = count.min(self.told);
        if confirmed == 0 {
            return Ok(());
        }
        let relay = &self.app.services.relay;
        relay.told_dropped(self.caller.mailbox, confirmed).await.map_err(behind)?;
        self.told -= confirmed;
        Ok(())
    }
}
