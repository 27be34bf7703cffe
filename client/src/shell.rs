//! The thin shell round the engine: it lends the engine randomness, the clock and a thread, and carries
//! out what the engine wants done. It decides nothing.

use futures_util::future::OptionFuture;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, broadcast, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tuckseal::Timestamp;
use tuckseal::service::server_frame::Body;

use crate::backoff;
use crate::engine::{Action, Engine, Input, Turn};
use crate::error::RunError;
use crate::event::Event;
use crate::push::Teller;
use crate::register::now;
use crate::store::{Account, ProfileError};
use crate::transport::ServerError;
use crate::transport::http::Http;
use crate::transport::stream::{Ended, Stream};

/// Events that an app may lag behind before it misses some.
const EVENTS: usize = 4096;
/// So long after it was given up an attempt to connect may still come to the server.
const LATE: Duration = Duration::from_secs(60);
/// The engine looks at the time so often while anything waits for one: the clock may be put back.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);
/// How long the last acknowledgements may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The engine with everything that a call needs. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    engine: Arc<Mutex<Engine>>,
    actions: mpsc::UnboundedSender<Action>,
    events: broadcast::Sender<Event>,
    next_tick: watch::Sender<Option<Timestamp>>,
    /// Held as long as the engine takes in what a [`run`] has heard, also when that was dropped meanwhile.
    inputs: Arc<AsyncMutex<()>>,
    push_turn: Arc<AsyncMutex<()>>,
    /// When an attempt to connect was given up without an answer, by whatever [`run`].
    given_up: Arc<Mutex<Option<Instant>>>,
}

/// Where the actions come out; there is one, for one [`run`].
pub(crate) type Actions = mpsc::UnboundedReceiver<Action>;

impl Shell {
    pub(crate) fn new(engine: Engine) -> (Self, Actions) {
        let (actions, carried_out) = mpsc::unbounded_channel();
        let shell = Self {
            engine: Arc::new(Mutex::new(engine)),
            actions,
            events: broadcast::Sender::new(EVENTS),
            next_tick: watch::Sender::new(None),
            inputs: Arc::default(),
            push_turn: Arc::default(),
            given_up: Arc::default(),
        };
        (shell, carried_out)
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Held by who tells the server where the device is woken.
    pub(crate) async fn push_turn(&self) -> MutexGuard<'_, ()> {
        self.push_turn.lock().await
    }

    /// Calls the engine on a thread that may block. Its actions go to [`run`], its events to the app.
    ///
    /// # Errors
    /// What `work` returns; [`ProfileError::Closed`] when the engine is no more.
    pub(crate) async fn call<R, E>(
        &self,
        work: impl FnOnce(&mut Engine, &mut Turn<'_>) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<ProfileError> + Send + 'static,
    {
        let shell = self.clone();
        let called = tokio::task::spawn_blocking(move || shell.call_here(work)).await;
        called.unwrap_or_else(|_| Err(ProfileError::Closed.into()))
    }

    fn call_here<R, E: From<ProfileError>>(
        &self,
        work: impl FnOnce(&mut Engine, &mut Turn<'_>) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut engine = self.engine.lock().map_err(|_| ProfileError::Closed)?;
        let mut rng = rand::rng();
        let mut turn = Turn::new(&mut rng, now());
        let result = work(&mut engine, &mut turn);
        for action in turn.actions {
            match action {
                // It may be about something that was not committed.
                Action::Tell(_) if result.is_err() => {}
                // Nobody may be listening.
                Action::Tell(event) => drop(self.events.send(event)),
                action => drop(self.actions.send(action)),
            }
        }
        // A failure here does not undo the call: the tick that was named before stays.
        if let Ok(next) = engine.next_tick() {
            self.next_tick.send_replace(next);
        }
        result
    }

    /// Whether the stream that has taken our place may be one of ours that was given up. Asked once for each.
    fn was_overtaken(&self) -> bool {
        let given_up = self.given_up().take();
        given_up.is_some_and(|at| at.elapsed() < LATE)
    }

    /// A poisoned lock guards a plain value.
    fn given_up(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn input(&self, input: Input) -> Result<(), ProfileError> {
        let in_order = Arc::clone(&self.inputs).lock_owned().await;
        self.call(move |engine, turn| {
            let _in_order = in_order;
            engine.handle(input, turn)
        })
        .await
    }
}

/// Connects, and connects again, until `shutdown` is ready.
///
/// # Errors
/// [`RunError`]: trying again would not help.
pub(crate) async fn run(
    shell: &Shell,
    actions: &mut Actions,
    http: &Http,
    own: &Account,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    // One that was dropped has not said so: what it had on its way has no answer any more, and what was asked of it
    // nobody carries out.
    shell.input(Input::Stopped).await?;
    while actions.try_recv().is_ok() {}
    let mut shutdown = pin!(shutdown);
    let mut loops = Loop { shell, actions, http, own, requests: JoinSet::new(), stream: None };
    let mut attempt = 0;
    let mut connect_at = Instant::now();
    let result = loop {
        let connected = loops.stream.is_some();
        let news = tokio::select! {
            () = &mut shutdown => break Ok(()),
            () = sleep_until(connect_at), if !connected => {
                drop(shell.events.send(Event::Connecting));
                tokio::select! {
                    () = &mut shutdown => break Ok(()),
                    opened = Attempt::open(shell, http, own) => News::Opened(opened.into()),
                }
            }
            news = loops.news() => news,
        };
        // Not broken off: an envelope that was taken in is acknowledged, by this or by the goodbye.
        match loops.step(news).await {
            Ok(Step::Connected) => attempt = 0,
            Ok(Step::Done) => {}
            Ok(Step::Disconnected(cause)) => {
                let retry_in = backoff::after(cause.retry_after(), attempt, &mut rand::rng());
                attempt = attempt.saturating_add(1);
                connect_at = Instant::now() + retry_in;
                drop(shell.events.send(Event::Disconnected { retry_in, cause }));
            }
            Err(error) => break Err(error),
        }
    };
    loops.requests.shutdown().await;
    loops.goodbye().await;
    shell.input(Input::Stopped).await?;
    result
}

/// An attempt to connect. One that is dropped or fails without an answer may come to the server later than the next.
struct Attempt<'a> {
    shell: &'a Shell,
    answered: bool,
}

impl<'a> Attempt<'a> {
    async fn open(shell: &'a Shell, http: &Http, own: &Account) -> Result<Stream, ServerError> {
        let mut attempt = Self { shell, answered: false };
        let opened = Stream::open(http, own).await;
        attempt.answered = !matches!(opened, Err(ServerError::Unreachable { .. }));
        opened
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.answered {
            *self.shell.given_up() = Some(Instant::now());
        }
    }
}

struct Loop<'a> {
    shell: &'a Shell,
    actions: &'a mut Actions,
    http: &'a Http,
    own: &'a Account,
    /// Requests on their way; each gives the input that its answer is.
    requests: JoinSet<Input>,
    stream: Option<Stream>,
}

/// What has happened.
enum News {
    Opened(Box<Result<Stream, ServerError>>),
    Frame(Result<Body, Ended>),
    Action(Action),
    /// Of a request; one that was cancelled or has panicked gives none.
    Answer(Option<Input>),
    Tick,
    /// Another tick is due first, perhaps.
    OtherTick,
}

enum Step {
    Done,
    Connected,
    Disconnected(ServerError),
}

impl Loop<'_> {
    async fn opened(&mut self, opened: Result<Stream, ServerError>) -> Result<Step, RunError> {
        match opened {
            Ok(stream) => {
                self.stream = Some(stream);
                self.shell.input(Input::Connected).await?;
                Ok(Step::Connected)
            }
            Err(ServerError::Unauthorised) => Err(RunError::TokenRefused),
            Err(cause) => Ok(Step::Disconnected(cause)),
        }
    }

    /// Waits for one thing to happen. Breaking the wait off loses nothing.
    async fn news(&mut self) -> News {
        let mut ticks = self.shell.next_tick.subscribe();
        let tick = ticks.borrow_and_update().map(until);
        let frame = OptionFuture::from(self.stream.as_mut().map(Stream::next));
        tokio::select! {
            Some(frame) = frame => News::Frame(frame),
            Some(action) = self.actions.recv() => News::Action(action),
            Some(answer) = self.requests.join_next() => News::Answer(answer.ok()),
            () = sleep_until(tick.unwrap_or_else(Instant::now)), if tick.is_some() => News::Tick,
            _ = ticks.changed() => News::OtherTick,
        }
    }

    /// Passes it on.
    async fn step(&mut self, news: News) -> Result<Step, RunError> {
        match news {
            News::Opened(opened) => return self.opened(*opened).await,
            News::Frame(Ok(body)) => self.shell.input(input_of(body)).await?,
            News::Frame(Err(ended)) => return self.ended(ended).await,
            News::Action(action) => return self.carry_out(action).await,
            News::Answer(Some(input)) => self.shell.input(input).await?,
            News::Tick => self.shell.input(Input::Tick).await?,
            News::Answer(None) | News::OtherTick => {}
        }
        Ok(Step::Done)
    }

    /// What was dealt with is acknowledged before the stream is closed: it would come again, and the server
    /// would wake the device for it.
    async fn goodbye(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let acknowledged = async {
            while let Ok(action) = self.actions.try_recv() {
                if let Action::Acknowledge(ids) = action {
                    stream.acknowledge(ids).await?;
                }
            }
            Ok::<_, Ended>(())
        };
        if let Ok(Ok(())) = tokio::time::timeout(GOODBYE, acknowledged).await {
            stream.close().await;
        }
    }

    async fn ended(&mut self, ended: Ended) -> Result<Step, RunError> {
        self.stream = None;
        self.shell.input(Input::Disconnected).await?;
        match ended {
            Ended::Broken(cause) => Ok(Step::Disconnected(cause)),
            Ended::Displaced if self.shell.was_overtaken() => {
                let server = self.http.server().to_owned();
                Ok(Step::Disconnected(ServerError::Unreachable { server }))
            }
            Ended::Displaced => Err(RunError::Displaced),
        }
    }

    async fn carry_out(&mut self, action: Action) -> Result<Step, RunError> {
        let (http, own) = (self.http.clone(), self.own.clone());
        match action {
            Action::FetchServerInfo => self.requests.spawn(async move {
                // Asked on every connection; nothing waits for it.
                http.server_info().await.map_or(Input::Tick, Input::ServerInfo)
            }),
            Action::FetchKeyCounts => {
                self.requests.spawn(async move { Input::KeyCounts(http.key_counts(&own).await) })
            }
            Action::UploadKeys { keys, upload } => self.requests.spawn(async move {
                let result = http.upload_keys(&own, &keys).await;
                Input::KeysUploaded { upload, result }
            }),
            Action::FetchCertificate => {
                self.requests.spawn(async move { Input::Certificate(http.certificate(&own).await) })
            }
            Action::FetchBundles { account, ticket, request_id, authority } => {
                self.requests.spawn(async move {
                    let result = http.bundles(&own, account, request_id, authority).await;
                    Input::Bundles { account, ticket, result }
                })
            }
            Action::Submit { account, ticket, body, authority } => {
                self.requests.spawn(async move {
                    let result = http.submit(&own, account, body, authority).await;
                    Input::Submitted { account, ticket, result }
                })
            }
            Action::SubmitMulti { ticket, body, by } => self.requests.spawn(async move {
                let result = http.submit_multi(&own, body, by).await;
                Input::MultiSubmitted { ticket, result }
            }),
            Action::TellPush => {
                let shell = self.shell.clone();
                self.requests.spawn(async move {
                    let teller = Teller { shell: &shell, http: &http, account: &own };
                    Input::PushTold(teller.repeat().await)
                })
            }
            Action::FetchReportTokens => self
                .requests
                .spawn(async move { Input::ReportTokens(http.report_tokens(&own).await) }),
            Action::FetchDevices => {
                self.requests.spawn(async move { Input::Devices(http.devices(&own).await) })
            }
            Action::Acknowledge(ids) => {
                if let Some(stream) = &mut self.stream
                    && let Err(ended) = stream.acknowledge(ids).await
                {
                    return self.ended(ended).await;
                }
                return Ok(Step::Done);
            }
            Action::Tell(event) => {
                drop(self.shell.events.send(event));
                return Ok(Step::Done);
            }
            Action::StopWrongTrustRoot => return Err(RunError::WrongTrustRoot),
        };
        Ok(Step::Done)
    }
}

/// When a time of the engine's clock is, on the runtime's.
fn until(at: Timestamp) -> Instant {
    let wait = at.as_millis().saturating_sub(now().as_millis());
    Instant::now() + Duration::from_millis(wait).min(LOOK_AGAIN)
}

fn input_of(body: Body) -> Input {
    match body {
        Body::Delivery(delivery) => Input::Delivered(delivery.envelopes),
        Body::Ephemeral(ephemeral) => Input::Passed(ephemeral),
        Body::QueueEmpty(_) => Input::QueueEmpty,
        Body::KeyCounts(counts) => Input::KeyCounts(Ok(counts)),
        Body::Gap(gap) => Input::Gap { dropped: gap.dropped },
        // Nothing is handed in over this stream.
        Body::SubmissionAnswers(_) => Input::Tick,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::{Person, Relay, event};

    /// As what comes late from a network that was bad.
    async fn late(person: &Person) -> Stream {
        Stream::open(&person.client.http, &person.client.account).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_attempt_of_our_own_that_comes_late_is_not_taken_for_a_copy_of_the_profile() {
        let mut relay = Relay::start().await;
        let alice = Person::register(&relay, "alice").await;
        let mut events = alice.client.events();
        relay.stop().await;
        let running = alice.spawn();
        let of = |disconnected: bool| {
            move |event| match event {
                Event::Disconnected { .. } => disconnected.then_some(()),
                Event::Connected => (!disconnected).then_some(()),
                _ => None,
            }
        };
        event(&mut events, of(true)).await;
        relay.start_again().await;
        event(&mut events, of(false)).await;
        let _late = late(&alice).await;
        event(&mut events, of(true)).await;
        event(&mut events, of(false)).await;
        // Once: another one is somebody else.
        let _copy = late(&alice).await;
        assert!(matches!(running.ended().await, Err(RunError::Displaced)));
    }
}
