//! Report tokens: a stock is kept, so that the server does not see when a conversation begins.

use tuckseal::service::ReportTokens;

use super::flight::Request;
use super::{Action, Engine, Link, Turn};
use crate::store::ProfileError;
use crate::transport::ServerError;

/// More are fetched when fewer are left.
const LOW: u64 = 5;

impl Engine {
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
