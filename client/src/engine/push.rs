//! When the server is told where the device is woken: after a start, and until it has heard of a change.

use super::flight::Request;
use super::{Action, Engine, Link, Turn};
use crate::error::PushError;
use crate::event::Event;
use crate::store::{ProfileError, Push};
use crate::transport::ServerError;

impl Engine {
    /// Remembers where the device is woken, as far as the server was told.
    pub(crate) fn save_push(
        &mut self,
        push: &Push,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        self.store.commit(|rows| rows.set_push(push))?;
        self.push_told = push.told;
        // It was tried just now.
        if !push.told && self.link != Link::Down && self.push_request == Request::Idle {
            self.push_request = self.push_request.failed(turn);
        }
        Ok(())
    }

    /// A push has come, so the server knows where to send them: it need not be told again for this start.
    pub(crate) fn woken_by_push(&mut self) -> Result<(), ProfileError> {
        self.push_told |= self.store.rows().push()?.is_some_and(|push| push.told);
        Ok(())
    }

    pub(super) fn want_push(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if !self.push_told && self.store.rows().push()?.is_some() {
            self.push_request = Request::OnItsWay { attempt: 0 };
            turn.actions.push(Action::TellPush);
        }
        Ok(())
    }

    pub(super) fn push_told(&mut self, result: Result<(), PushError>, turn: &mut Turn<'_>) {
        match result {
            Ok(()) => (self.push_told, self.push_request) = (true, Request::Idle),
            Err(PushError::Server(ServerError::Refused { status })) => {
                (self.push_told, self.push_request) = (true, Request::Idle);
                turn.tell(Event::PushRefused { status });
            }
            Err(PushError::Server(cause)) => {
                let failed = self.push_request.failed(turn);
                self.push_request = failed.put_off(cause.retry_after(), turn.now);
            }
            Err(_) => self.push_request = self.push_request.failed(turn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::stage::{Person, Relay};

    /// Whether the server would be told, when a start goes on like this and then connects.
    async fn tells(person: &Person, begin: fn(&mut Engine) -> Result<(), ProfileError>) -> bool {
        let connected = move |engine: &mut Engine, turn: &mut Turn<'_>| {
            begin(engine)?;
            engine.handle(Input::Connected, turn)?;
            engine.handle(Input::Stopped, turn)?;
            Ok::<_, ProfileError>(turn.actions.iter().any(|it| matches!(it, Action::TellPush)))
        };
        person.client.shell.call(connected).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_start_tells_the_server_and_one_that_it_caused_only_what_it_does_not_know() {
        let mut relay = Relay::start().await;
        let bob = Person::register(&relay, "bob").await;
        assert!(!tells(&bob, |_| Ok(())).await, "there is nothing to tell");
        bob.client.register_web_push("https://push.example/1").await.unwrap();
        assert!(!tells(&bob, |_| Ok(())).await, "it was told just now");
        let bob = bob.reopen().await;
        assert!(tells(&bob, |_| Ok(())).await);
        assert!(!tells(&bob, Engine::woken_by_push).await);
        relay.stop().await;
        bob.client.register_web_push("https://push.example/2").await.unwrap_err();
        assert!(tells(&bob, Engine::woken_by_push).await, "it does not know of the change");
    }
}
