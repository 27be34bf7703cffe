//! Reporting a sender of spam to the server.

use bytes::Bytes;
use tuckseal::ServiceId;
use tuckseal::service::Report;

use crate::client::Client;
use crate::error::ReportError;
use crate::transport::ServerError;

impl Client {
    /// Tells the server that this account has sent spam. It counts one report of the account, from the token that came inside
    /// its messages; who reported is not kept. Again for the same token, it succeeds and changes nothing.
    ///
    /// # Errors
    /// [`ReportError`]; nothing was reported.
    pub async fn report_spam(&self, account: ServiceId) -> Result<(), ReportError> {
        let received =
            self.shell.call(move |engine, _| engine.store.rows().received_report_token(account));
        let token = received.await?.ok_or(ReportError::NoToken)?;
        let report = Report { account: Bytes::copy_from_slice(account.uuid()), token };
        self.http.report(&self.account, &report).await.map_err(|error| match error {
            ServerError::Refused { status: 400 } => ReportError::NotGood,
            other => other.into(),
        })
    }
}
