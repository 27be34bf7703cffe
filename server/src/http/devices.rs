//! `/v1/devices`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tuckseal::service::{DeviceLink, DeviceName, Devices, Registered, SignedDevice};

use super::App;
use super::body::Protobuf;
use super::commit::to_the_end;
use super::error::Refusal;
use super::ids;
use super::openapi::{CredentialRefusals, Problem, Refusals};
use super::path::Path;
use crate::service::accounts::Caller;

#[utoipa::path(
    post,
    path = "/v1/devices/links",
    tag = "devices",
    summary = "Leave to link one further device",
    security(("device" = [])),
    responses((status = 200, description = "DeviceLink", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn open_link(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<DeviceLink>, Refusal> {
    Ok(Protobuf(app.services.devices.open_link(&caller).await?))
}

#[utoipa::path(
    get,
    path = "/v1/devices/links/{id}",
    tag = "devices",
    summary = "Wait until a device was linked",
    security(("device" = [])),
    params(("id" = String, Path, pattern = "^[0-9a-f]{32}$", description = "DeviceLink.id in hex")),
    responses((status = 200, description = "LinkedDevice", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 204, description = "None yet: ask again"), (status = 404, description = "The account has no such link, or it has ended", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn linked(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let id = link_id(&id)?;
    let linked = tokio::select! {
        linked = app.services.devices.linked(&caller, id) => linked?,
        // Another node, or this one when it is there again, can be asked.
        () = app.leaving.cancelled() => None,
    };
    Ok(linked.map_or(StatusCode::NO_CONTENT.into_response(), |it| Protobuf(it).into_response()))
}

#[utoipa::path(
    post,
    path = "/v1/devices",
    tag = "devices",
    summary = "Register a further device, with a linking token",
    security(()),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "SignedDevice"),
    responses((status = 200, description = "Registered", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 401, description = "No such link (any more), or the identity key is not proven", body = Problem, content_type = "application/problem+json"), (status = 409, description = "The account has as many devices as it may", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    Protobuf(signed): Protobuf<SignedDevice>,
) -> Result<Protobuf<Registered>, Refusal> {
    let registering = async move { app.services.devices.register(signed).await };
    Ok(Protobuf(to_the_end(registering).await?))
}

#[utoipa::path(
    get,
    path = "/v1/devices",
    tag = "devices",
    summary = "The devices of the own account",
    security(("device" = [])),
    responses((status = 200, description = "Devices", body = Vec<u8>, content_type = "application/x-protobuf"), CredentialRefusals),
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
) -> Result<Protobuf<Devices>, Refusal> {
    Ok(Protobuf(app.services.devices.list(&caller).await?))
}

#[utoipa::path(
    put,
    path = "/v1/devices/{id}/name",
    tag = "devices",
    summary = "Name a device",
    security(("device" = [])),
    params(("id" = String, Path, description = "1 to 127")),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "DeviceName"),
    responses((status = 204, description = "Named"), (status = 403, description = "The first device may do that, or the device itself", body = Problem, content_type = "application/problem+json"), (status = 404, description = "No such device", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn rename(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    Protobuf(name): Protobuf<DeviceName>,
) -> Result<StatusCode, Refusal> {
    app.services.devices.rename(&caller, device_id(&id)?, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    delete,
    path = "/v1/devices/{id}",
    tag = "devices",
    summary = "Remove a device with all that is kept for it",
    security(("device" = [])),
    params(("id" = String, Path, description = "1 to 127")),
    responses((status = 204, description = "Removed"), (status = 403, description = "The first device stays; and it alone may remove others", body = Problem, content_type = "application/problem+json"), (status = 404, description = "No such device", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let id = device_id(&id)?;
    to_the_end(async move { app.services.devices.remove(&caller, id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn device_id(text: &str) -> Result<u8, Refusal> {
    let id = ids::device(text);
    id.ok_or(Refusal::Request(StatusCode::BAD_REQUEST, "the device must be 1 to 127"))
}

fn link_id(text: &str) -> Result<[u8; 16], Refusal> {
    let id = ids::sixteen_bytes(text.as_bytes());
    id.ok_or(Refusal::Request(
        StatusCode::BAD_REQUEST,
        "the link must be DeviceLink.id in 32 hex digits",
    ))
}
