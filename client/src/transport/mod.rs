//! The ways to the server: requests (`http.rs`) and the stream (`stream.rs`). What is asked and what
//! follows from the answers is the engine's business.

pub(crate) mod http;
pub(crate) mod stream;
mod tls;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::Duration;
use tuckseal::service::DeviceMismatch;
use zeroize::Zeroizing;

use crate::store::Account;

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
