//! Parts of a path, with a refusal like every other one.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::Refusal;

/// Like axum's own, which answers with plain text where a part is not UTF-8.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(parts)| Self(parts)).map_err(|_| {
            Refusal::Request(StatusCode::BAD_REQUEST, "a part of the path is not UTF-8")
        })
    }
}
