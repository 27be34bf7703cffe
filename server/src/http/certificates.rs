//! `/v1/server`, `/v1/certificates/sender`.

use std::sync::Arc;

use axum::extract::State;
use tuckseal::service::{SenderCertificateAnswer, ServerInfo};

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use super::openapi::{CredentialRefusals, Refusals};
use crate::service::accounts::Caller;

#[utoipa::path(
    get,
    path = "/v1/server",
    tag = "server",
    summary = "What the server is and takes",
    security(()),
    responses((status = 200, description = "ServerInfo", body = Vec<u8>, content_type = "application/x-protobuf"), Refusals),
)]
pub(super) async fn server_info(State(app): State<Arc<App>>) -> Protobuf<ServerInfo> {
    Protobuf(app.services.certificates.server_info())
}

#[utoipa::path(
    get,
    path = "/v1/certificates/sender",
    tag = "certificates",
    summary = "A sender certificate for this device",
    security(("device" = [])),
    responses((status = 200, description = "SenderCertificateAnswer", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn sender(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<SenderCertificateAnswer>, Refusal> {
    Ok(Protobuf(app.services.certificates.issue(&caller)?))
}
