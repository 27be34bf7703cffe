//! `/v1/push`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tuckseal::service::PushRegistration;

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use super::openapi::CredentialRefusals;
use crate::service::accounts::Caller;

#[utoipa::path(
    put,
    path = "/v1/push",
    tag = "push",
    summary = "Be woken there from now on",
    security(("device" = [])),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "PushRegistration"),
    responses((status = 204, description = "Registered"), CredentialRefusals),
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    Protobuf(registration): Protobuf<PushRegistration>,
) -> Result<StatusCode, Refusal> {
    app.services.push.register(&caller, registration).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    delete,
    path = "/v1/push",
    tag = "push",
    summary = "Be woken nowhere",
    security(("device" = [])),
    responses((status = 204, description = "Done"), CredentialRefusals),
)]
pub(super) async fn unregister(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<StatusCode, Refusal> {
    app.services.push.unregister(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
