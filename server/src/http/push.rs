//! `/v1/push`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tuckseal::service::PushRegistration;

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use crate::service::accounts::Caller;

pub(super) async fn register(
    State(app): State<Arc<App>>,
    caller: Caller,
    Protobuf(registration): Protobuf<PushRegistration>,
) -> Result<StatusCode, Refusal> {
    app.services.push.register(&caller, registration).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn unregister(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<StatusCode, Refusal> {
    app.services.push.unregister(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}
