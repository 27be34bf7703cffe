//! `PUT /v1/messages/{account}`, `PUT /v1/messages/multi`.

use std::sync::Arc;

use axum::extract::{Path, State};
use tuckseal::service::{Accepted, MultiAccepted, MultiSubmission, Submission};

use super::App;
use super::auth::{Credential, account};
use super::body::Protobuf;
use super::error::Refusal;
use crate::service::accounts::Caller;
use crate::service::multi::MultiRight;
use crate::service::relay::Right;

pub(super) async fn submit(
    State(app): State<Arc<App>>,
    credential: Credential,
    Path(to): Path<String>,
    Protobuf(submission): Protobuf<Submission>,
) -> Result<Protobuf<Accepted>, Refusal> {
    let right = match credential {
        Credential::Device(_) => Right::Token,
        Credential::AccessKey(key) => Right::AccessKey(key),
    };
    app.services.relay.submit(account(&to)?, right, submission).await?;
    Ok(Protobuf(Accepted {}))
}

pub(super) async fn submit_multi(
    State(app): State<Arc<App>>,
    caller: Option<Caller>,
    Protobuf(submission): Protobuf<MultiSubmission>,
) -> Result<Protobuf<MultiAccepted>, Refusal> {
    let right = caller.map_or(MultiRight::AccessKeys, |_| MultiRight::Token);
    Ok(Protobuf(app.services.relay.submit_multi(right, submission).await?))
}
