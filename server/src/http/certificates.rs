//! `/v1/server`, `/v1/certificates/sender`.

use std::sync::Arc;

use axum::extract::State;
use tuckseal::service::{SenderCertificateAnswer, ServerInfo};

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use crate::service::accounts::Caller;

pub(super) async fn server_info(State(app): State<Arc<App>>) -> Protobuf<ServerInfo> {
    Protobuf(app.services.certificates.server_info())
}

pub(super) async fn sender(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<SenderCertificateAnswer>, Refusal> {
    Ok(Protobuf(app.services.certificates.issue(&caller)?))
}
