//! Report tokens: a stock is kept, so that the server does not see when a conversation begins.

use bytes::Bytes;
use tuckseal::service::ReportTokens;
use tuckseal::{ServiceId, Timestamp};

use super::flight::Request;
use super::{Action, Engine, Link, Turn};
use crate::store::{ProfileError, Rows};
use crate::transport::ServerError;

/// More are fetched when fewer are left.
const LOW: u64 = 5;

/// Somebody who has not answered us. Who has answered has accepted us.
pub(super) fn is_new(rows: Rows<'_>, account: ServiceId) -> Result<bool, ProfileError> {
    Ok(rows.peer(account)?.is_none_or(|peer| peer.access_key.is_none()))
}

/// The token that goes with a message to somebody new, if there is one.
pub(super) fn token_for(
    rows: Rows<'_>,
    account: ServiceId,
    now: Timestamp,
) -> Result<Option<Bytes>, ProfileError> {
    if is_new(rows, account)? { rows.give_report_token(account, now) } else { Ok(None) }
}

impl Engine {
    /// After something that may have taken tokens; what it did stands whatever becomes of this.
    pub(super) fn refill_report_tokens(&mut self, turn: &mut Turn<'_>) {
        if let Err(error) = self.want_report_tokens(turn) {
            tracing::warn!(%error, "report tokens");
        }
    }

    /// Asks for more if few are left.
    pub(super) fn want_report_tokens(&mut self, turn: &mut Turn<'_>) -> Result<(), ProfileError> {
        if self.link == Link::Down || self.report_request != Request::Idle {
            return Ok(());
        }
        if self.store.rows().report_tokens_left(turn.now)? < LOW {
            self.report_request = Request::OnItsWay { attempt: 0 };
            turn.actions.push(Action::FetchReportTokens);
        }
        Ok(())
    }

    /// Messages go without a token until there is one.
    pub(super) fn report_tokens(
        &mut self,
        result: Result<ReportTokens, ServerError>,
        turn: &mut Turn<'_>,
    ) -> Result<(), ProfileError> {
        match result {
            Ok(answer) => {
                self.store
                    .commit(|rows| rows.add_report_tokens(&answer.tokens, answer.expires_ms))?;
                self.report_request = Request::Idle;
            }
            Err(ServerError::NotFound | ServerError::Refused { .. }) => {
                // It has none. The next connection asks again.
            }
            Err(cause) => {
                let failed = self.report_request.failed(turn);
                self.report_request = failed.put_off(cause.retry_after(), turn.now);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Input;
    use crate::stage::{Person, Relay};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_token_that_nobody_reads_goes_with_no_message() {
        let relay = Relay::start_with(|config| config.limits.report_tokens = 1).await;
        let [alice, bob] =
            [Person::register(&relay, "alice").await, Person::register(&relay, "bob").await];
        let tokens: Vec<Bytes> = [0, 129, 52].map(|length| vec![1; length].into()).into();
        let given = Input::ReportTokens(Ok(ReportTokens { tokens, expires_ms: u64::MAX >> 1 }));
        let take = |engine: &mut Engine, turn: &mut Turn<'_>| {
            engine
                .store
                .commit(|rows| rows.give_report_token(ServiceId::aci([1; 16]), turn.now))?;
            engine.handle(given, turn)
        };
        alice.client.shell.call(take).await.unwrap();
        let _running = [alice.spawn(), bob.spawn()];
        alice.send(&bob, "hello").await;
        assert_eq!(bob.next().await.text, "hello");
        let us = alice.client.account();
        let came = move |engine: &mut Engine, _: &mut Turn<'_>| {
            engine.store.rows().received_report_token(us)
        };
        assert_eq!(bob.client.shell.call(came).await.unwrap(), Some(vec![1; 52].into()));
    }
}
