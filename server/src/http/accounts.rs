//! `/v1/challenges`, `/v1/accounts`, `/v1/usernames`.

use std::sync::Arc;

use axum::extract::State;
use tuckseal::service::{AccountAnswer, Challenge, Registered, SignedRegistration};

use super::App;
use super::body::Protobuf;
use super::commit::to_the_end;
use super::error::Refusal;
use super::openapi::{CredentialRefusals, Problem, Refusals};
use super::path::Path;
use crate::service::accounts::Caller;

#[utoipa::path(
    post,
    path = "/v1/challenges",
    tag = "challenges",
    summary = "A challenge to sign",
    security(()),
    responses((status = 200, description = "Challenge", body = Vec<u8>, content_type = "application/x-protobuf"), Refusals),
)]
pub(super) async fn challenge(State(app): State<Arc<App>>) -> Protobuf<Challenge> {
    Protobuf(app.services.accounts.challenge())
}

#[utoipa::path(
    post,
    path = "/v1/accounts",
    tag = "accounts",
    summary = "Make or renew an account",
    security(()),
    request_body(content = Vec<u8>, content_type = "application/x-protobuf", description = "SignedRegistration"),
    responses((status = 200, description = "Registered", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 401, description = "The identity key is not proven", body = Problem, content_type = "application/problem+json"), (status = 403, description = "The gate asks for more: a proof of work", body = Problem, content_type = "application/problem+json"), (status = 409, description = "The name has another owner", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn register(
    State(app): State<Arc<App>>,
    Protobuf(signed): Protobuf<SignedRegistration>,
) -> Result<Protobuf<Registered>, Refusal> {
    let registering = async move { app.services.accounts.register(signed).await };
    Ok(Protobuf(to_the_end(registering).await?))
}

#[utoipa::path(
    get,
    path = "/v1/usernames/{name}",
    tag = "usernames",
    summary = "The account of a name",
    security(("device" = [])),
    params(("name" = String, Path)),
    responses((status = 200, description = "AccountAnswer", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 404, description = "No such name", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn by_name(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Protobuf<AccountAnswer>, Refusal> {
    Ok(Protobuf(app.services.accounts.by_name(&caller, name).await?))
}
