//! `PUT /v1/messages/{account}`.

use std::sync::Arc;

use axum::extract::{Path, State};
use tuckseal::service::{Accepted, Submission};

use super::App;
use super::auth::{Credential, account};
use super::body::Protobuf;
use super::error::Refusal;
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
