//! The ways to the server: requests (`http.rs`) and the stream (`stream.rs`). What is asked and what
//! follows from the answers is the engine's business.

pub(crate) mod http;
pub(crate) mod stream;
mod tls;

pub use tls::{Ca, CaError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use std::time::Duration;
use tuckseal::service::DeviceMismatch;
use zeroize::Zeroizing;

use crate::store::{Account, HighWater};

/// Longest code that an operator refuses with.
const MAX_REASON: usize = 64;

/// The server did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No connection, or it broke.
    #[error("cannot reach the server at {server}: is it running, and is the address right?")]
    Unreachable {
        /// Its base address.
        server: String,
    },
    /// The server restarts, and has said when it is there again.
    #[error("the server restarts and asks to come back in {} s", .retry_after.as_secs())]
    Restarts {
        /// Not before.
        retry_after: Duration,
    },
    /// The address of the server is none that this release can call.
    #[error("{server} is not an address of the form https://host:port or http://host:port")]
    Address {
        /// As given.
        server: String,
    },
    /// There are no certificates to trust.
    #[error(
        "the certificates of this system cannot be used: install its package of CA certificates"
    )]
    Tls,
    /// 401
    #[error("the server does not accept who we say we are")]
    Unauthorised,
    /// 404
    #[error("the server does not know it")]
    NotFound,
    /// 409
    #[error("the server has something else under that name or id")]
    Conflict,
    /// 403, by the server's operator.
    #[error("the operator of the server refuses it (reason: {reason}): ask them")]
    ByOperator {
        /// A code of the operator's own: a-z 0-9 and -.
        reason: String,
    },
    /// Another status from 400 to 499.
    #[error("the server refused the request with status {status}")]
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// 429, or a status from 500 on.
    #[error("the server is busy (status {status}): it will be tried again")]
    Busy {
        /// HTTP status.
        status: u16,
        /// What it asks for.
        retry_after: Duration,
    },
    /// The answer is not what it should be.
    #[error("the server's answer cannot be understood: is it a tuckseal server of this version?")]
    Answer,
}

impl ServerError {
    /// The least time before the next try.
    pub(crate) fn retry_after(&self) -> Duration {
        match self {
            Self::Busy { retry_after, .. } | Self::Restarts { retry_after } => *retry_after,
            _ => Duration::ZERO,
        }
    }
}

/// A submission was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// It was made for other devices than the recipient has. Nothing was stored.
    Devices(DeviceMismatch),
    Server(ServerError),
}

/// An upload of prekeys was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UploadError {
    /// Some of its ids are used for other keys. Nothing was stored.
    Used(HighWater),
    Server(ServerError),
}

/// What a status that is no success means; a server may ask for a wait, up to the longest.
fn refusal(status: StatusCode, headers: &HeaderMap, longest: Duration) -> ServerError {
    let code = status.as_u16();
    if let Some(reason) = operators_reason(status, headers) {
        return ServerError::ByOperator { reason };
    }
    match code {
        401 => ServerError::Unauthorised,
        404 => ServerError::NotFound,
        409 => ServerError::Conflict,
        429 | 500.. => {
            let header = headers.get("retry-after");
            let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
            let retry_after = Duration::from_secs(seconds.unwrap_or(1)).min(longest);
            ServerError::Busy { status: code, retry_after }
        }
        400..500 => ServerError::Refused { status: code },
        _ => ServerError::Answer,
    }
}

/// A code that can be shown, if the operator has refused.
fn operators_reason(status: StatusCode, headers: &HeaderMap) -> Option<String> {
    let reason = headers.get("refusal-reason")?.to_str().ok()?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let good = status == StatusCode::FORBIDDEN
        && (1..=MAX_REASON).contains(&reason.len())
        && reason.bytes().all(plain);
    good.then(|| reason.to_owned())
}

/// The marks in the problem document of a refused upload; `None` if it is about something else.
fn high_water(document: &[u8]) -> Option<HighWater> {
    let problem: serde_json::Value = serde_json::from_slice(document).ok()?;
    let marks = problem.get("high_water")?;
    let mark = |name| u32::try_from(marks.get(name)?.as_u64()?).ok();
    Some(HighWater {
        one_time: mark("one_time")?,
        one_time_kem: mark("one_time_kem")?,
        signed: mark("signed")?,
        last_resort: mark("last_resort")?,
    })
}

/// The header `authorization` of a device.
pub(crate) fn device_token(account: &Account) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(49));
    bytes.extend_from_slice(account.address.service_id.uuid());
    bytes.push(account.address.device_id.get());
    bytes.extend_from_slice(&account.token[..]);
    Zeroizing::new(format!("Bearer {}", URL_SAFE_NO_PAD.encode(&bytes)))
}

/// The header `access-key`.
pub(crate) fn access_key(key: &[u8; 16]) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_that_a_busy_server_asks_for_is_read_and_bounded() {
        let longest = Duration::from_secs(60);
        let wait = |status: u16, value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("retry-after", value.parse().unwrap());
            }
            let error = refusal(StatusCode::from_u16(status).unwrap(), &headers, longest);
            assert!(matches!(error, ServerError::Busy { status: of, .. } if of == status));
            error.retry_after().as_secs()
        };
        for status in [429, 502, 503] {
            assert_eq!(wait(status, Some("7")), 7);
            assert_eq!(wait(status, Some("18446744073709551615")), 60);
            for unread in [None, Some("-1"), Some("Fri, 31 Dec 1999 23:59:59 GMT")] {
                assert_eq!(wait(status, unread), 1);
            }
        }
    }

    #[test]
    fn marks_are_read_from_a_problem_that_has_all_of_them() {
        let marks = r#"{"one_time":200,"one_time_kem":0,"signed":7,"last_resort":4294967295}"#;
        let read = |marks: &str| {
            let document = format!(r#"{{"type":"x","status":409,"high_water":{marks}}}"#);
            high_water(document.as_bytes())
        };
        let all =
            HighWater { one_time: 200, one_time_kem: 0, signed: 7, last_resort: 4_294_967_295 };
        assert_eq!(read(marks), Some(all));
        for (from, to) in
            [("200", "-1"), ("200", "4294967296"), ("200", "\"200\""), ("signed", "x")]
        {
            assert_eq!(read(&marks.replace(from, to)), None, "{to}");
        }
        for other in ["", "{}", "[]", r#"{"type":"urn:tuckseal:problem:too-many-keys"}"#] {
            assert_eq!(high_water(other.as_bytes()), None, "{other}");
        }
    }
}
