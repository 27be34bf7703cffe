//! Who asks: a device with its token, or somebody with an access key. Never both.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::App;
use super::error::Refusal;
use crate::service::ServiceError;
use crate::service::accounts::Caller;
use crate::storage::AccountId;

const ACCESS_KEY: HeaderName = HeaderName::from_static("access-key");
/// account (16) || device id (1) || token (32)
const BEARER_LEN: usize = 49;

/// A device token or an access key. The access key is not checked yet.
pub(super) enum Credential {
    Device(Caller),
    AccessKey([u8; 16]),
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match <Credential as FromRequestParts<_>>::from_request_parts(parts, app).await? {
            Credential::Device(caller) => Ok(caller),
            Credential::AccessKey(_) => Err(ServiceError::Unauthorised.into()),
        }
    }
}

/// None if nothing is shown.
impl OptionalFromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut Parts,
        app: &Arc<App>,
    ) -> Result<Option<Self>, Refusal> {
        let shown = [&header::AUTHORIZATION, &ACCESS_KEY];
        if shown.iter().all(|name| !parts.headers.contains_key(*name)) {
            return Ok(None);
        }
        <Self as FromRequestParts<_>>::from_request_parts(parts, app).await.map(Some)
    }
}

impl FromRequestParts<Arc<App>> for Credential {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        match (
            single(&parts.headers, &header::AUTHORIZATION)?,
            single(&parts.headers, &ACCESS_KEY)?,
        ) {
            (Some(_), Some(_)) => Err(Refusal::Request(
                StatusCode::BAD_REQUEST,
                "show a device token or an access key, not both",
            )),
            (None, None) => Err(ServiceError::Unauthorised.into()),
            (None, Some(key)) => {
                let key = decode::<16>(key).ok_or(ServiceError::Unauthorised)?;
                Ok(Self::AccessKey(key))
            }
            (Some(bearer), None) => {
                let (account, device, token) =
                    bearer_parts(bearer).ok_or(ServiceError::Unauthorised)?;
                Ok(Self::Device(app.services.accounts.caller(account, device, &token).await?))
            }
        }
    }
}

/// The account of a path: a lowercase hyphenated UUID and no other form.
pub(super) fn account(text: &str) -> Result<AccountId, Refusal> {
    let parsed = Uuid::try_parse(text).ok().filter(|uuid| uuid.hyphenated().to_string() == text);
    parsed.map(|uuid| AccountId(uuid.into_bytes())).ok_or(Refusal::Request(
        StatusCode::BAD_REQUEST,
        "the account must be a lowercase hyphenated UUID",
    ))
}

/// The value of a header that may stand once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Refusal::Request(StatusCode::BAD_REQUEST, "a credential stands twice")),
        (value, None) => Ok(value.map(|value| value.as_bytes())),
    }
}

fn bearer_parts(value: &[u8]) -> Option<(AccountId, u8, [u8; 32])> {
    let (scheme, value) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let bytes = decode::<BEARER_LEN>(value)?;
    let (account, rest) = bytes.split_first_chunk::<16>()?;
    let (device, token) = rest.split_first()?;
    Some((AccountId(*account), *device, token.try_into().ok()?))
}

fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_has_one_written_form() {
        let good = "a1a2a3a4-b1b2-41d1-91d2-d3d4d5d6d7d8";
        assert!(account(good).is_ok());
        for bad in [&good.to_uppercase(), &good.replace('-', ""), "", "..", &format!("{{{good}}}")]
        {
            assert!(account(bad).is_err(), "{bad}");
        }
    }
}
