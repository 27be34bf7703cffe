//! `/v1/challenges`, `/v1/accounts`, `/v1/usernames`.

use std::sync::Arc;

use axum::extract::{Path, State};
use tuckseal::service::{AccountAnswer, Challenge, Registered, SignedRegistration};

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use crate::service::accounts::Caller;

pub(super) async fn challenge(State(app): State<Arc<App>>) -> Protobuf<Challenge> {
    Protobuf(app.services.accounts.challenge())
}

pub(super) async fn register(
    State(app): State<Arc<App>>,
    Protobuf(signed): Protobuf<SignedRegistration>,
) -> Result<Protobuf<Registered>, Refusal> {
    Ok(Protobuf(app.services.accounts.register(signed).await?))
}

pub(super) async fn by_name(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Protobuf<AccountAnswer>, Refusal> {
    Ok(Protobuf(app.services.accounts.by_name(&caller, name).await?))
}
