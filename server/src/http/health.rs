//! `/healthz`: the process is up. `/readyz`: the database answers and the server takes work.

use std::sync::Arc;

use axum::extract::State;

use super::App;
use super::error::Refusal;
use crate::service::ServiceError;
use crate::storage::StoreError;

pub(super) async fn alive() -> &'static str {
    "alive\n"
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    if app.stopping.is_cancelled() {
        return Err(ServiceError::Store(StoreError::Stopping).into());
    }
    app.store.check().await.map_err(ServiceError::from)?;
    Ok("ready\n")
}
