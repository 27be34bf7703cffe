//! `PUT /v1/messages/{account}`, `PUT /v1/messages/multi`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use tuckseal::service::{Accepted, MultiAccepted, MultiSubmission, Submission};

use super::App;
use super::auth::{Credential, account};
use super::body::Protobuf;
use super::commit::to_the_end;
use super::error::Refusal;
use super::openapi::{CredentialRefusals, Problem};
use super::path::Path;
use crate::service::accounts::Caller;
use crate::service::multi::MultiRight;
use crate::service::relay::Right;

#[utoipa::path(
    put,
    path = "/v1/messages/{account}",
    tag = "messages",
    summary = "Hand in a message for all devices of an account",
    security(("device" = []), ("access_key" = [])),
    params(("account" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", description = "Lowercase, with hyphens")),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "Submission"),
    responses((status = 200, description = "Accepted: it is on disk", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 404, description = "No such account", body = Problem, content_type = "application/problem+json"), (status = 409, description = "DeviceMismatch: devices are missing or do not exist; nothing was stored", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 410, description = "DeviceMismatch: devices were registered anew; nothing was stored", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn submit(
    _room: Room,
    State(app): State<Arc<App>>,
    credential: Credential,
    Path(to): Path<String>,
    Protobuf(submission): Protobuf<Submission>,
) -> Result<Protobuf<Accepted>, Refusal> {
    let to = account(&to)?;
    let hooks = &app.services.hooks;
    let right = match credential {
        Credential::Device(caller) => {
            hooks.submission(caller.account, &submission).await?;
            Right::Token((&caller).into())
        }
        Credential::AccessKey(key) => {
            hooks.sealed(&submission).await?;
            Right::AccessKey(key)
        }
    };
    to_the_end(async move { app.services.relay.submit(to, right, submission).await }).await?;
    Ok(Protobuf(Accepted {}))
}

#[utoipa::path(
    put,
    path = "/v1/messages/multi",
    tag = "messages",
    summary = "Hand in one message for many accounts",
    security((), ("device" = [])),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "MultiSubmission"),
    responses((status = 200, description = "MultiAccepted", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn submit_multi(
    _room: Room,
    State(app): State<Arc<App>>,
    caller: Option<Caller>,
    Protobuf(submission): Protobuf<MultiSubmission>,
) -> Result<Protobuf<MultiAccepted>, Refusal> {
    let hooks = &app.services.hooks;
    let right = match caller {
        Some(caller) => {
            hooks.multi_submission(caller.account, &submission).await?;
            MultiRight::Token((&caller).into())
        }
        None => {
            hooks.multi_sealed(&submission).await?;
            MultiRight::AccessKeys
        }
    };
    let submitting = async move { app.services.relay.submit_multi(right, submission).await };
    Ok(Protobuf(to_the_end(submitting).await?))
}

/// The store is not behind. Looked at before anything else, so that what cannot be taken in costs nothing.
pub(super) struct Room;

impl FromRequestParts<Arc<App>> for Room {
    type Rejection = Refusal;

    async fn from_request_parts(_: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        Ok(app.services.relay.has_room().map(|()| Self)?)
    }
}
