//! `/v1/keys`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use tuckseal::service::{KeyCounts, KeysUpload};

use super::App;
use super::auth::{Credential, account};
use super::body::{Encoded, Protobuf};
use super::commit::to_the_end;
use super::error::Refusal;
use super::ids;
use super::openapi::{CredentialRefusals, Problem};
use super::path::Path;
use crate::service::accounts::Caller;
use crate::service::keys::{Fetcher, Wanted};

const REQUEST_ID: &str = "request-id";

#[utoipa::path(
    put,
    path = "/v1/keys",
    tag = "keys",
    summary = "Upload prekeys: all or none",
    security(("device" = [])),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "KeysUpload"),
    responses((status = 200, description = "KeyCounts", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 409, description = "An id was used for another key, or too many keys wait", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    caller: Caller,
    Protobuf(upload): Protobuf<KeysUpload>,
) -> Result<Protobuf<KeyCounts>, Refusal> {
    Ok(Protobuf(app.services.keys.upload(&caller, upload).await?))
}

#[utoipa::path(
    get,
    path = "/v1/keys",
    tag = "keys",
    summary = "What is left of the own prekeys",
    security(("device" = [])),
    responses((status = 200, description = "KeyCounts", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn counts(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<KeyCounts>, Refusal> {
    Ok(Protobuf(app.services.keys.counts(&caller).await?))
}

#[utoipa::path(
    get,
    path = "/v1/keys/{account}/{device}",
    tag = "keys",
    summary = "Take a bundle of each wanted device",
    security(("device" = []), ("access_key" = [])),
    params(("account" = String, Path, pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$", description = "Lowercase, with hyphens"), ("device" = String, Path, description = "1 to 127, or *"), ("request-id" = Option<String>, Header, description = "32 hex digits; the same one gets the same answer for a minute")),
    responses((status = 200, description = "Bundles", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 404, description = "No such account or device", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn fetch(
    State(app): State<Arc<App>>,
    credential: Credential,
    Path((of, device)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Encoded, Refusal> {
    let (of, wanted, request) = (account(&of)?, wanted(&device)?, request_id(&headers)?);
    let accounts = &app.services.accounts;
    let (fetcher, target) = match credential {
        Credential::Device(caller) => (Fetcher::Device(caller.mailbox), accounts.by_id(of).await?),
        Credential::AccessKey(key) => {
            let target = accounts.by_access_key(of, &key).await?;
            (Fetcher::KeyHolder(target.row), target)
        }
    };
    let taking = async move { app.services.keys.fetch(fetcher, target, wanted, request).await };
    Ok(Encoded(to_the_end(taking).await?))
}

fn wanted(device: &str) -> Result<Wanted, Refusal> {
    let wanted =
        if device == "*" { Some(Wanted::All) } else { ids::device(device).map(Wanted::One) };
    wanted.ok_or(Refusal::Request(StatusCode::BAD_REQUEST, "the device must be 1 to 127 or *"))
}

fn request_id(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Refusal> {
    let Some(text) = headers.get(REQUEST_ID) else { return Ok(None) };
    let id = ids::sixteen_bytes(text.as_bytes());
    let id =
        id.ok_or(Refusal::Request(StatusCode::BAD_REQUEST, "request-id must be 32 hex digits"));
    id.map(Some)
}
