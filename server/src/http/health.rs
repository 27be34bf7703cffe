//! `/healthz`: the process is up. `/readyz`: the database answers and the server takes work.

use std::sync::Arc;

use axum::extract::State;

use super::App;
use super::error::Refusal;
use super::openapi::Refusals;
use crate::service::ServiceError;
use crate::storage::StoreError;

#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    summary = "The process is up",
    security(()),
    responses((status = 200, description = "It is", body = String, content_type = "text/plain; charset=utf-8"), Refusals),
)]
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    summary = "The database answers and the server takes work",
    security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain; charset=utf-8"), Refusals),
)]
pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    if app.draining.is_cancelled() {
        return Err(ServiceError::Store(StoreError::Stopping).into());
    }
    app.store.check().await.map_err(ServiceError::from)?;
    Ok("ready\n")
}
