//! `POST /v1/report-tokens`, `POST /v1/reports`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tuckseal::service::{Report, ReportTokens};

use super::App;
use super::body::Protobuf;
use super::commit::to_the_end;
use super::error::Refusal;
use super::openapi::CredentialRefusals;
use crate::service::accounts::Caller;

#[utoipa::path(
    post,
    path = "/v1/report-tokens",
    tag = "reports",
    summary = "Tokens to hand on inside encrypted messages, by which their reader can report this account",
    security(("device" = [])),
    responses((status = 200, description = "ReportTokens", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn tokens(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<ReportTokens>, Refusal> {
    Ok(Protobuf(app.services.reports.tokens(&caller)?))
}

#[utoipa::path(
    post,
    path = "/v1/reports",
    tag = "reports",
    summary = "Report the account that a token came from as a sender of spam",
    security(("device" = [])),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "Report"),
    responses((status = 204, description = "It counts, or this token has counted before"), CredentialRefusals),
)]
pub(super) async fn report(
    State(app): State<Arc<App>>,
    caller: Caller,
    Protobuf(report): Protobuf<Report>,
) -> Result<StatusCode, Refusal> {
    to_the_end(async move { app.services.reports.report(&caller, &report).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
