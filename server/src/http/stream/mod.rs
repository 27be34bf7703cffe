//! `GET /v1/stream`: the WebSocket on which a device gets its mailbox and hands in submissions. Without a token it
//! takes sealed submissions alone. The order of things is `service/delivery.rs`.

#[cfg(test)]
mod interleavings;
mod mailbox;
mod socket;
mod submitting;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use prost::Message as _;
use rand::RngExt;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tokio_util::task::task_tracker::TaskTrackerToken;
use tuckseal::service::{ClientFrame, SubmissionAnswers, client_frame, server_frame};

use super::App;
use super::error::Refusal;
use super::openapi::CredentialRefusals;
use crate::bus::Wakes;
use crate::metrics;
use crate::service::ServiceError;
use crate::service::accounts::Caller;
use crate::storage::StoreError;
use mailbox::Mailbox;
use socket::Socket;
use submitting::{Shown, Submitting};

/// Buffers of a stream, in bytes.
const BUFFER: usize = 4096;
/// Streams of devices are idle mostly, and what comes in is acknowledgements.
const DEVICE_READ_BUFFER: usize = 1024;
/// How long an envelope handed over in memory waits for the one before it.
const HOLE: Duration = Duration::from_millis(50);

#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "stream",
    summary = "Open a WebSocket of ServerFrame and ClientFrame",
    security((), ("device" = [])),
    responses((status = 101, description = "It is one now"), CredentialRefusals),
)]
pub(super) async fn open(
    State(app): State<Arc<App>>,
    caller: Option<Caller>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let upgrade = upgrade.map_err(|_| {
        Refusal::Request(StatusCode::BAD_REQUEST, "open this resource as a WebSocket")
    })?;
    if app.leaving.is_cancelled() {
        return Err(ServiceError::Store(StoreError::Stopping).into());
    }
    let largest = app.services.limits.max_submission_bytes;
    let largest = usize::try_from(largest).unwrap_or(usize::MAX);
    let upgrade = upgrade
        .read_buffer_size(if caller.is_some() { DEVICE_READ_BUFFER } else { BUFFER })
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(usize::MAX)
        .max_frame_size(largest)
        .max_message_size(largest);
    let open = app.open.token();
    Ok(upgrade.on_upgrade(move |socket| {
        let socket = Socket::new(socket, app.services.limits.stream_write_secs);
        Box::new(Stream::new(app, caller, socket, open)).run()
    }))
}

/// Why a stream ends.
enum End {
    /// With this code and reason.
    Close(u16, &'static str),
    /// The server restarts, and is there again after so many seconds, if that takes a while.
    Restart(Option<u64>),
    /// The other side has said that it leaves.
    Left,
    /// The other side is gone or does not take what is sent.
    Gone,
}

fn behind(_: ServiceError) -> End {
    End::Close(close_code::AGAIN, "the server is behind or stopping; connect again")
}

struct Stream {
    app: Arc<App>,
    socket: Socket,
    /// None on a stream without a token.
    mailbox: Option<Mailbox>,
    submitting: Submitting,
    heard: Instant,
    _counted: metrics::Held,
    _open: TaskTrackerToken,
}

impl Stream {
    fn new(app: Arc<App>, caller: Option<Caller>, socket: Socket, open: TaskTrackerToken) -> Self {
        let shown = caller.as_ref().map_or(Shown::Nothing, |caller| Shown::Token(caller.into()));
        let gauge =
            if caller.is_some() { &metrics::DEVICE_STREAMS } else { &metrics::BARE_STREAMS };
        let submitting = Submitting::new(Arc::clone(&app), shown);
        let mailbox = caller.map(|caller| Mailbox::new(Arc::clone(&app), caller));
        Self {
            app,
            socket,
            mailbox,
            submitting,
            heard: Instant::now(),
            _counted: gauge.one(),
            _open: open,
        }
    }

    /// Boxed: a task whose future owns what it changes keeps a second place for it.
    async fn run(mut self: Box<Self>) {
        let end = match Box::pin(self.begin()).await {
            Ok(()) => self.serve().await,
            Err(end) => end,
        };
        Box::pin(self.end(end)).await;
    }

    async fn end(self: Box<Self>, end: End) {
        let Self { socket, mailbox, submitting, _counted, _open, .. } = *self;
        submitting.leave();
        if let Some(mailbox) = mailbox {
            mailbox.release().await;
        }
        match end {
            End::Close(code, reason) => socket.close(code, reason).await,
            End::Restart(None) => socket.close(close_code::RESTART, "the server restarts").await,
            End::Restart(Some(secs)) => {
                let reason = format!("the server restarts; retry-after: {secs}");
                socket.close(close_code::RESTART, reason).await;
            }
            End::Left => socket.drain().await,
            End::Gone => {}
        }
    }

    async fn begin(&mut self) -> Result<(), End> {
        if let Some(mailbox) = &mut self.mailbox {
            mailbox.begin(&mut self.socket).await?;
        }
        self.deliver().await
    }

    /// What is done between two waits is boxed: a stream waits nearly always, and should be no larger than that takes.
    async fn serve(&mut self) -> End {
        let app = Arc::clone(&self.app);
        // One for all turns: each one made anew takes a lock that all streams have in common.
        let mut leaves = std::pin::pin!(leave(&app));
        let period = Duration::from_secs(self.app.services.limits.ping_interval_secs);
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            let hole_since = self.mailbox.as_ref().and_then(Mailbox::hole_since);
            let readable = self.submitting.has_room();
            let event = tokio::select! {
                back = &mut leaves => Event::Leave(back),
                wakes = mailbox::wakes(self.mailbox.as_ref()) => Event::Wakes(wakes),
                answers = self.submitting.answers() => Event::Answers(answers),
                frame = self.socket.recv(), if readable => Event::Frame(frame),
                tick = tick(&mut ticks, hole_since) => Event::Tick(tick),
            };
            if let Err(end) = Box::pin(self.turn(event)).await {
                return end;
            }
        }
    }

    /// Does what there is to do, then sends all that may be sent now.
    async fn turn(&mut self, event: Event) -> Result<(), End> {
        match (event, &mut self.mailbox) {
            (Event::Leave(back), _) => return Err(End::Restart(back)),
            (Event::Wakes(wakes), Some(mailbox)) => mailbox.woken(wakes, &mut self.socket).await?,
            (Event::Wakes(_), None) => {}
            (Event::Answers(answers), _) => {
                self.socket.send(server_frame::Body::SubmissionAnswers(answers)).await?;
            }
            (Event::Frame(frame), _) => self.received(frame).await?,
            (Event::Tick(Tick::Hole), Some(mailbox)) => mailbox.look(),
            (Event::Tick(_), _) => self.ping().await?,
        }
        self.deliver().await
    }

    async fn deliver(&mut self) -> Result<(), End> {
        match &mut self.mailbox {
            Some(mailbox) => mailbox.deliver(&mut self.socket).await,
            None => Ok(()),
        }
    }

    async fn received(&mut self, frame: Option<Result<Message, axum::Error>>) -> Result<(), End> {
        self.heard = Instant::now();
        match (frame, &mut self.mailbox) {
            (Some(Ok(Message::Binary(bytes))), _) => self.frame(bytes),
            (Some(Ok(Message::Text(_))), _) => {
                Err(End::Close(close_code::UNSUPPORTED, "send binary frames"))
            }
            (Some(Ok(Message::Pong(payload))), Some(mailbox)) => mailbox.pong(&payload).await,
            (Some(Ok(Message::Pong(_) | Message::Ping(_))), _) => Ok(()),
            (Some(Ok(Message::Close(_))), _) => Err(End::Left),
            (None, _) => Err(End::Gone),
            (Some(Err(_)), _) => Err(End::Close(
                close_code::PROTOCOL,
                "not a frame of the WebSocket protocol, or too large",
            )),
        }
    }

    fn frame(&mut self, bytes: Bytes) -> Result<(), End> {
        let malformed = End::Close(close_code::INVALID, "not a ClientFrame");
        let Ok(frame) = ClientFrame::decode(bytes) else { return Err(malformed) };
        match (frame.body, &mut self.mailbox) {
            (Some(client_frame::Body::Ack(ack)), Some(mailbox)) => {
                mailbox.acknowledged(&ack.ids).map_err(|_| malformed)
            }
            (Some(client_frame::Body::Submissions(submissions)), _) => {
                self.submitting.add(submissions).map_err(|_| {
                    End::Close(close_code::SIZE, "hand in fewer submissions in one frame")
                })
            }
            (Some(client_frame::Body::Ack(_)), None) | (None, _) => Err(malformed),
        }
    }

    /// Sees whether the other side is there.
    async fn ping(&mut self) -> Result<(), End> {
        if self.heard.elapsed() >= Duration::from_secs(self.app.services.limits.stream_idle_secs) {
            return Err(End::Gone);
        }
        self.socket.write(Message::Ping(Bytes::new())).await
    }
}

/// Ready when a stream is to leave because the server stops, each at a time of its own. Says after how many seconds
/// there is a server again; where other nodes are, that is at once.
async fn leave(app: &App) -> Option<u64> {
    app.leaving.cancelled().await;
    let spread = app.services.limits.drain_spread_secs;
    if spread == 0 {
        return None;
    }
    let wait = Duration::from_secs(spread).mul_f64(rand::rng().random());
    // Boxed: it would be a part of every idle stream.
    let waited = Box::pin(tokio::time::timeout(wait, app.stopping.cancelled()));
    // Either is the end.
    let _ = waited.await;
    app.alone.then(|| spread.saturating_sub(wait.as_secs()).saturating_add(1))
}

/// What a stream waits for.
enum Event {
    /// The server is about to stop, and is there again after so many seconds.
    Leave(Option<u64>),
    Wakes(Wakes),
    Answers(SubmissionAnswers),
    /// None: the other side is gone.
    Frame(Option<Result<Message, axum::Error>>),
    Tick(Tick),
}

enum Tick {
    Ping,
    Hole,
}

async fn tick(pings: &mut Interval, hole_since: Option<Instant>) -> Tick {
    let hole = async {
        match hole_since {
            Some(since) => {
                Box::pin(tokio::time::sleep(HOLE.saturating_sub(since.elapsed()))).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = pings.tick() => Tick::Ping,
        () = hole => Tick::Hole,
    }
}
