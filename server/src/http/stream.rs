//! `GET /v1/stream`: the WebSocket on which a device gets its mailbox. The order of things is `service/delivery.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use prost::Message as _;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tuckseal::service::{
    ClientFrame, Delivery as DeliveryFrame, Gap, QueueEmpty, ServerFrame, client_frame,
    server_frame,
};

use super::App;
use super::error::Refusal;
use crate::bus::{Subscription, Wakes};
use crate::service::accounts::Caller;
use crate::service::delivery::Delivery;
use crate::storage::StoredEnvelope;

/// Read and write buffer of a stream, in bytes: most streams are idle.
const BUFFER: usize = 4096;
/// Largest frame of a client, in bytes.
const CLIENT_FRAME: usize = 64 * 1024;
/// Envelopes of one delivery, and bytes after which no further one is added.
const DELIVERY_MESSAGES: usize = 64;
const DELIVERY_BYTES: usize = 64 * 1024;
/// How long an envelope handed over in memory waits for the one before it.
const HOLE: Duration = Duration::from_millis(50);
/// How long the other side has to answer a close.
const CLOSING: Duration = Duration::from_secs(2);
/// Another stream of the same device was opened.
const DISPLACED: u16 = 4409;

pub(super) async fn open(
    State(app): State<Arc<App>>,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| {
        Refusal::Request(StatusCode::BAD_REQUEST, "open this resource as a WebSocket")
    })?;
    let upgrade = upgrade
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(usize::MAX)
        .max_frame_size(CLIENT_FRAME)
        .max_message_size(CLIENT_FRAME);
    let open = app.open.token();
    Ok(upgrade.on_upgrade(move |socket| Stream::new(app, caller, socket, open).run()))
}

/// Why a stream ends.
enum End {
    /// With this code and reason.
    Close(u16, &'static str),
    /// The other side has said that it leaves.
    Left,
    /// The other side is gone or does not take what is sent.
    Gone,
}

struct Stream {
    app: Arc<App>,
    caller: Caller,
    socket: WebSocket,
    wakes: Subscription,
    delivery: Delivery,
    epoch: i64,
    /// Dropped envelopes that the device was told of and has not confirmed by a pong.
    told: u64,
    heard: Instant,
    hole_since: Option<Instant>,
    write_limit: Duration,
    _open: TaskTrackerToken,
}

impl Stream {
    fn new(app: Arc<App>, caller: Caller, socket: WebSocket, open: TaskTrackerToken) -> Self {
        // The place is taken before the mailbox is read: what is stored from now on is handed over.
        let wakes = app.services.relay.subscribe(caller.mailbox);
        let delivery = Delivery::new(app.services.relay.window());
        let write_limit = Duration::from_secs(app.services.limits.stream_write_secs);
        let heard = Instant::now();
        Self {
            app,
            caller,
            socket,
            wakes,
            delivery,
            epoch: 0,
            told: 0,
            heard,
            hole_since: None,
            write_limit,
            _open: open,
        }
    }

    async fn run(mut self) {
        let end = match self.begin().await {
            Ok(()) => self.serve().await,
            Err(end) => end,
        };
        self.app.services.relay.release(self.caller.mailbox, self.epoch).await;
        match end {
            End::Close(code, reason) => self.close(code, reason).await,
            End::Left => self.drain().await,
            End::Gone => {}
        }
    }

    async fn begin(&mut self) -> Result<(), End> {
        // Claimed before the mailbox is read: a submission is either read or placed with this node.
        self.epoch = self.app.services.relay.claim(self.caller.mailbox).await.map_err(behind)?;
        self.wakes.claimed(self.epoch);
        self.app.services.relay.settle().await.map_err(behind)?;
        self.tell_keys(OnlyIfLow::Yes).await
    }

    async fn serve(&mut self) -> End {
        let stopping = self.app.stopping.clone();
        let period = Duration::from_secs(self.app.services.limits.ping_interval_secs);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            if let Err(end) = self.deliver().await {
                return end;
            }
            let done = tokio::select! {
                () = stopping.cancelled() => Err(End::Close(close_code::RESTART, "the server restarts")),
                wakes = self.wakes.next() => self.woken(wakes).await,
                frame = self.socket.recv() => self.received(frame).await,
                done = tick(&mut ticks, self.hole_since) => match done {
                    Tick::Ping => self.ping().await,
                    Tick::Hole => { self.delivery.look(); Ok(()) }
                },
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// Sends all that may be sent now.
    async fn deliver(&mut self) -> Result<(), End> {
        while let Some((cursor, limit)) = self.delivery.reading() {
            let relay = &self.app.services.relay;
            let backlog = relay.read(self.caller.mailbox, cursor, limit).await.map_err(behind)?;
            if backlog.dropped > self.told {
                self.tell_gap(backlog.dropped - self.told).await?;
            }
            let due = self.delivery.read(backlog);
            self.send_envelopes(due).await?;
        }
        let due = self.delivery.due();
        self.send_envelopes(due).await?;
        self.wakes.seen(self.delivery.cursor());
        if self.delivery.opened() {
            self.send(server_frame::Body::QueueEmpty(QueueEmpty {})).await?;
        }
        self.hole_since = match (self.delivery.has_hole(), self.hole_since) {
            (true, None) => Some(Instant::now()),
            (true, since) => since,
            (false, _) => None,
        };
        Ok(())
    }

    async fn send_envelopes(&mut self, envelopes: Vec<StoredEnvelope>) -> Result<(), End> {
        let (mut frame, mut bytes) = (DeliveryFrame::default(), 0);
        for envelope in envelopes {
            let size = envelope.size();
            let full = frame.envelopes.len() == DELIVERY_MESSAGES || bytes + size > DELIVERY_BYTES;
            if full && !frame.envelopes.is_empty() {
                self.send(server_frame::Body::Delivery(std::mem::take(&mut frame))).await?;
                bytes = 0;
            }
            bytes += size;
            frame.envelopes.push(self.app.services.relay.envelope(self.caller.mailbox, envelope));
        }
        if frame.envelopes.is_empty() {
            Ok(())
        } else {
            self.send(server_frame::Body::Delivery(frame)).await
        }
    }

    /// Tells of dropped envelopes. The ping behind it is answered by a client that has got both.
    async fn tell_gap(&mut self, dropped: u64) -> Result<(), End> {
        self.told += dropped;
        self.send(server_frame::Body::Gap(Gap { dropped })).await?;
        self.write(Message::Ping(Bytes::copy_from_slice(&self.told.to_be_bytes()))).await
    }

    async fn tell_keys(&mut self, only_if_low: OnlyIfLow) -> Result<(), End> {
        let keys = &self.app.services.keys;
        let counts = keys.counts(&self.caller).await.map_err(behind)?;
        if only_if_low == OnlyIfLow::No || keys.is_low(&counts) {
            self.send(server_frame::Body::KeyCounts(counts)).await?;
        }
        Ok(())
    }

    async fn woken(&mut self, wakes: Wakes) -> Result<(), End> {
        if wakes.displaced {
            return Err(End::Close(DISPLACED, "another stream of this device was opened"));
        }
        if wakes.look {
            self.delivery.look();
        }
        wakes.stored.into_iter().for_each(|envelope| self.delivery.offer(envelope));
        if wakes.keys { self.tell_keys(OnlyIfLow::No).await } else { Ok(()) }
    }

    async fn received(&mut self, frame: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        match frame {
            Some(Ok(Message::Binary(bytes))) => self.frame(bytes),
            Some(Ok(Message::Text(_))) => {
                Err(End::Close(close_code::UNSUPPORTED, "send binary frames"))
            }
            Some(Ok(Message::Pong(payload))) => self.pong(&payload).await,
            Some(Ok(Message::Ping(_))) => Ok(()),
            Some(Ok(Message::Close(_))) => Err(End::Left),
            None => Err(End::Gone),
            Some(Err(_)) => Err(End::Close(
                close_code::PROTOCOL,
                "not a frame of the WebSocket protocol, or too large",
            )),
        }
    }

    fn frame(&mut self, bytes: Bytes) -> Result<(), End> {
        let malformed = || End::Close(close_code::INVALID, "not a ClientFrame");
        let frame = ClientFrame::decode(bytes).map_err(|_| malformed())?;
        let Some(client_frame::Body::Ack(ack)) = frame.body else { return Err(malformed()) };
        let relay = &self.app.services.relay;
        let seqs = relay.acknowledge(self.caller.mailbox, &ack.ids).map_err(|_| malformed())?;
        seqs.into_iter().for_each(|seq| self.delivery.acknowledged(seq));
        Ok(())
    }

    /// A pong with a count confirms a gap.
    async fn pong(&mut self, payload: &[u8]) -> Result<(), End> {
        let Ok(count) = <[u8; 8]>::try_from(payload).map(u64::from_be_bytes) else { return Ok(()) };
        let confirmed = count.min(self.told);
        if confirmed == 0 {
            return Ok(());
        }
        self.app
            .services
            .relay
            .told_dropped(self.caller.mailbox, confirmed)
            .await
            .map_err(behind)?;
        self.told -= confirmed;
        Ok(())
    }

    /// Sees whether the other side is there.
    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() >= Duration::from_secs(self.app.services.limits.stream_idle_secs) {
            return Err(End::Gone);
        }
        self.write(Message::Ping(Bytes::new())).await
    }

    async fn send(&mut self, body: server_frame::Body) -> Result<(), End> {
        let frame = ServerFrame { body: Some(body) };
        self.write(Message::Binary(frame.encode_to_vec().into())).await
    }

    async fn write(&mut self, message: Message) -> Result<(), End> {
        match timeout(self.write_limit, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }

    async fn close(mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        if let Ok(Ok(())) = timeout(CLOSING, self.socket.send(Message::Close(Some(frame)))).await {
            self.drain().await;
        }
    }

    /// Lets the closing handshake end. Without an answer the socket is dropped.
    async fn drain(mut self) {
        let closing = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = timeout(CLOSING, closing).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnlyIfLow {
    Yes,
    No,
}

enum Tick {
    Ping,
    Hole,
}

async fn tick(pings: &mut Interval, hole_since: Option<Instant>) -> Tick {
    let hole = async {
        match hole_since {
            Some(since) => tokio::time::sleep(HOLE.saturating_sub(since.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = pings.tick() => Tick::Ping,
        () = hole => Tick::Hole,
    }
}

fn behind(_: crate::service::ServiceError) -> End {
    End::Close(close_code::AGAIN, "the server is behind or stopping; connect again")
}
