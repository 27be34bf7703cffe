//! Refusals as problem documents (RFC 9457), and the two answers that carry a `DeviceMismatch`.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tuckseal::service::{DeviceMismatch, Refused};

use super::body::Protobuf;
use super::openapi::Problem;
use crate::service::ServiceError;
use crate::storage::{Mismatch, StoreError};

const REFUSAL_REASON: HeaderName = HeaderName::from_static("refusal-reason");
/// How long a client should wait when the server is behind or stopping.
const BEHIND: Duration = Duration::from_secs(1);
/// How long it should wait when it takes nothing in.
const READ_ONLY: Duration = Duration::from_secs(59);

/// Why a request is refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    Service(ServiceError),
    /// No byte of the range is there; the attachment has so many.
    Range(u64),
    /// Another version of tus, or none.
    TusVersion,
    /// The request itself is not what the API asks for.
    Request(StatusCode, &'static str),
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Request(status, detail) => {
                problem(status, "request", "Bad request", detail.into())
            }
            Self::Range(size) => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let detail = format!("ask for a range within {size} bytes");
                let mut response = problem(status, "range", "No such range", detail);
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
                    response.headers_mut().insert(header::CONTENT_RANGE, value);
                }
                response
            }
            Self::TusVersion => {
                let status = StatusCode::PRECONDITION_FAILED;
                let detail = "send the header tus-resumable: 1.0.0";
                let mut response =
                    problem(status, "tus-version", "Other version of tus", detail.into());
                response.headers_mut().insert("tus-version", HeaderValue::from_static("1.0.0"));
                response
            }
            Self::Service(ServiceError::Devices(mismatch)) => mismatched(mismatch),
            Self::Service(error) => {
                let (status, kind, title) = kind(&error);
                let high_water = match &error {
                    ServiceError::KeyCollision(collision) => Some((&*collision.known).into()),
                    _ => None,
                };
                let problem = Problem {
                    reason: reason(&error),
                    high_water,
                    ..named(status, kind, title, error.to_string())
                };
                let mut response = answer(status, &problem, wait(&error));
                // For clients that read no body of a refusal. A code has no character that a header does not take.
                let reason = problem.reason.and_then(|code| HeaderValue::from_str(&code).ok());
                reason.map(|reason| response.headers_mut().insert(REFUSAL_REASON, reason));
                response
            }
        }
    }
}

fn wait(error: &ServiceError) -> Option<Duration> {
    match error {
        ServiceError::TooMany(wait)
        | ServiceError::UploadBusy(wait)
        | ServiceError::NotNow(wait)
        | ServiceError::NoCheck(wait) => Some(*wait),
        ServiceError::Store(StoreError::ReadOnly) => Some(READ_ONLY),
        ServiceError::Store(_) | ServiceError::Files(_) => Some(BEHIND),
        _ => None,
    }
}

/// What the operator's hook says of it.
fn reason(error: &ServiceError) -> Option<String> {
    match error {
        ServiceError::RefusedByOperator(reason) => Some(reason.as_str().into()),
        _ => None,
    }
}

/// The same refusal over the stream.
pub(super) fn refused(error: &ServiceError) -> Refused {
    let (status, kind, _) = kind(error);
    Refused {
        status: status.as_u16().into(),
        r#type: name(kind),
        detail: error.to_string(),
        reason: reason(error).unwrap_or_default(),
        retry_after_secs: wait(error).map_or(0, whole_secs),
    }
}

/// Rounded up: trying earlier would fail again.
fn whole_secs(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(1)
}

fn name(kind: &str) -> String {
    format!("urn:tuckseal:problem:{kind}")
}

fn kind(error: &ServiceError) -> (StatusCode, &'static str, &'static str) {
    match error {
        ServiceError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid", "Invalid message"),
        ServiceError::Unauthorised => (StatusCode::UNAUTHORIZED, "unauthorised", "Not authorised"),
        ServiceError::NotProven => (StatusCode::UNAUTHORIZED, "not-proven", "Identity not proven"),
        ServiceError::NoLink => (StatusCode::UNAUTHORIZED, "link-token", "No such link"),
        ServiceError::DeviceNotProven => {
            (StatusCode::UNAUTHORIZED, "not-proven", "Identity not proven")
        }
        ServiceError::TooManyDevices(_) => {
            (StatusCode::CONFLICT, "too-many-devices", "Too many devices")
        }
        ServiceError::NotFirst => (StatusCode::FORBIDDEN, "not-first", "Not the first device"),
        ServiceError::FirstStays => (StatusCode::FORBIDDEN, "first-stays", "The first device"),
        ServiceError::NameTooLong(_) => (StatusCode::BAD_REQUEST, "invalid", "Invalid message"),
        ServiceError::NotAdmitted(_) => (StatusCode::FORBIDDEN, "not-admitted", "Not admitted"),
        ServiceError::RefusedByOperator(_) => {
            (StatusCode::FORBIDDEN, "refused-by-operator", "Refused by the operator")
        }
        ServiceError::NotNow(_) => (StatusCode::TOO_MANY_REQUESTS, "not-now", "Not now"),
        ServiceError::NoCheck(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again"),
        ServiceError::NoReportToken => {
            (StatusCode::BAD_REQUEST, "report-token", "No report token of that account")
        }
        ServiceError::NameTaken => (StatusCode::CONFLICT, "name-taken", "Name taken"),
        ServiceError::NotFound(_) => (StatusCode::NOT_FOUND, "not-found", "Not found"),
        ServiceError::KeyCollision(_) => {
            (StatusCode::CONFLICT, "key-id-used", "Key id used before")
        }
        ServiceError::TooManyKeys => (StatusCode::CONFLICT, "too-many-keys", "Too many prekeys"),
        // Answered by `mismatched`.
        ServiceError::Devices(_) => (StatusCode::CONFLICT, "devices", "Other devices"),
        ServiceError::TooLarge(_)
        | ServiceError::TooManyRecipients(_)
        | ServiceError::AttachmentTooLarge(_) => {
            (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large")
        }
        ServiceError::EnvelopeSize => {
            (StatusCode::BAD_REQUEST, "envelope-size", "Envelope of another size")
        }
        ServiceError::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "over-limit", "Over the limit"),
        ServiceError::TooManyPieces => {
            (StatusCode::FORBIDDEN, "too-many-pieces", "Too many pieces")
        }
        ServiceError::UploadBusy(_) => (StatusCode::LOCKED, "upload-busy", "Upload in progress"),
        ServiceError::Files(error) => {
            tracing::error!(error = error as &dyn std::error::Error, "attachments");
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again")
        }
        ServiceError::Store(StoreError::ReadOnly) => {
            (StatusCode::SERVICE_UNAVAILABLE, "read-only", "Nothing is taken in")
        }
        ServiceError::Store(error) => {
            if !matches!(error, StoreError::Busy | StoreError::Stopping) {
                tracing::error!(error = error as &dyn std::error::Error, "store");
            }
            (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again")
        }
    }
}

fn problem(status: StatusCode, kind: &str, title: &'static str, detail: String) -> Response {
    answer(status, &named(status, kind, title, detail), None)
}

fn named(status: StatusCode, kind: &str, title: &'static str, detail: String) -> Problem {
    let (r#type, status) = (name(kind), status.as_u16());
    Problem { r#type, title, status, detail, reason: None, high_water: None }
}

fn answer(status: StatusCode, problem: &Problem, wait: Option<Duration>) -> Response {
    // A struct of strings and numbers always serialises.
    let body = serde_json::to_vec(problem).unwrap_or_default();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(wait) = wait {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_secs(wait)));
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

fn mismatched(mismatch: Mismatch) -> Response {
    let stale_alone = mismatch.missing.is_empty() && mismatch.extra.is_empty();
    let status = if stale_alone { StatusCode::GONE } else { StatusCode::CONFLICT };
    (status, Protobuf(DeviceMismatch::from(mismatch))).into_response()
}

pub(super) async fn no_such_resource() -> Refusal {
    Refusal::Service(ServiceError::NotFound("resource"))
}

pub(super) async fn no_such_method() -> Refusal {
    Refusal::Request(StatusCode::METHOD_NOT_ALLOWED, "this resource does not take this method")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_that_is_behind_or_stopping_says_when_to_try_again() {
        for error in [StoreError::Busy, StoreError::Stopping, StoreError::NotCommitted] {
            let response = Refusal::Service(error.into()).into_response();
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key(header::RETRY_AFTER));
        }
    }
}
