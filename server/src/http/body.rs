//! Protobuf bodies, in both directions, with a size and a time for those that come in.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use prost::Message;

use super::App;
use super::error::Refusal;

const PROTOBUF: &str = "application/x-protobuf";

/// A message as a body.
pub(super) struct Protobuf<M>(pub(super) M);

/// Encoded protobuf as a body.
pub(super) struct Encoded(pub(super) Bytes);

impl<M: Message + Default> FromRequest<Arc<App>> for Protobuf<M> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        if kind.is_some_and(|kind| kind != PROTOBUF) {
            return Err(Refusal::Request(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send application/x-protobuf",
            ));
        }
        let limit = Duration::from_secs(app.services.limits.body_timeout_secs);
        let body = tokio::time::timeout(limit, Bytes::from_request(request, app)).await;
        let body = body
            .map_err(|_| Refusal::Request(StatusCode::REQUEST_TIMEOUT, "send the body faster"))?;
        let body = body.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Refusal::Request(StatusCode::PAYLOAD_TOO_LARGE, "send a smaller body")
            }
            _ => Refusal::Request(StatusCode::BAD_REQUEST, "the body broke off"),
        })?;
        let message = M::decode(body);
        message.map(Self).map_err(|_| {
            Refusal::Request(StatusCode::BAD_REQUEST, "the body is not the message asked for")
        })
    }
}

impl<M: Message> IntoResponse for Protobuf<M> {
    fn into_response(self) -> Response {
        Encoded(self.0.encode_to_vec().into()).into_response()
    }
}

impl IntoResponse for Encoded {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF))], self.0).into_response()
    }
}
