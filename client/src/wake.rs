//! What follows from a wake-up: a short life of the client, for the background.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::client::{Client, Events, INBOX_PAGE};
use crate::error::RunError;
use crate::event::Event;
use crate::message::Message;
use crate::store::ProfileError;
use crate::transport::ServerError;

/// How long receipts and the like may take to leave when everything was fetched.
const FAREWELL: Duration = Duration::from_secs(2);

/// What came of a wake-up.
#[derive(Debug)]
pub struct Woken {
    /// The messages that came, oldest first; at most 500. They stand in the inbox, where more may be, until
    /// they are acknowledged.
    pub messages: Vec<Message>,
    /// Why it ended.
    pub end: WakeEnd,
}

/// Why what followed from a wake-up has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WakeEnd {
    /// All that waited at the relay has come.
    Emptied,
    /// The time was over first: more may wait.
    Deadline,
    /// The server could not be reached in the time.
    NotConnected {
        /// The last cause.
        cause: ServerError,
    },
}

impl Client {
    /// A push came: connects, fetches until nothing waits at the relay any more, lets receipts leave, and
    /// disconnects. For a background handler that has no more than `deadline`; the goodbye may take a second
    /// more. Dropping it loses nothing. Where [`Client::run`] is running nothing has to be done.
    ///
    /// # Errors
    /// [`RunError`]; [`RunError::AlreadyRunning`] says that the running client fetches it.
    pub async fn wake(&self, deadline: Duration) -> Result<Woken, RunError> {
        let before = self.shell.call(|engine, _| {
            engine.woken_by_push()?;
            engine.store.rows().inbox_last()
        });
        let before = before.await?;
        let mut events = self.events();
        let mut end = WakeEnd::Deadline;
        let fetched = async { end = self.fetched(&mut events, deadline).await };
        self.run(fetched).await?;
        let came = self.shell.call(move |engine, _| engine.store.rows().inbox(before, INBOX_PAGE));
        let messages = came.await?;
        Ok(Woken { messages, end })
    }

    async fn fetched(&self, events: &mut Events, deadline: Duration) -> WakeEnd {
        let begun = Instant::now();
        let mut cause = None;
        match timeout(deadline, self.emptied(events, &mut cause)).await {
            Ok(Ok(())) => {}
            // The run meets the same failure, or the call after it.
            Ok(Err(_)) => return WakeEnd::Deadline,
            Err(_) => {
                return cause.map_or(WakeEnd::Deadline, |cause| WakeEnd::NotConnected { cause });
            }
        }
        let left = deadline.saturating_sub(begun.elapsed()).min(FAREWELL);
        // What does not leave in time leaves with the next connection.
        let _ = timeout(left, self.answered(events)).await;
        WakeEnd::Emptied
    }

    async fn emptied(
        &self,
        events: &mut Events,
        cause: &mut Option<ServerError>,
    ) -> Result<(), ProfileError> {
        // Asked each time: the event that tells it may be among those that were missed.
        while !self.shell.call(|engine, _| Ok::<_, ProfileError>(engine.is_live())).await? {
            match events.recv().await {
                Some(Event::Connected) => *cause = None,
                Some(Event::Disconnected { cause: why, .. }) => *cause = Some(why),
                Some(_) => {}
                None => return Err(ProfileError::Closed),
            }
        }
        Ok(())
    }

    async fn answered(&self, events: &mut Events) -> Result<(), ProfileError> {
        while self.outbox_len().await? > 0 {
            events.recv().await.ok_or(ProfileError::Closed)?;
        }
        Ok(())
    }
}
