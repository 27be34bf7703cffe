//! `/openapi.json`: the API as OpenAPI 3.1, made from what stands at the handlers. Bodies are protobuf; each
//! description names the message of `proto/service.proto`.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi, ToSchema};

use crate::storage::KeyState;

/// Why a request is refused, and what to do (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:tuckseal:problem:` and the kind
    pub(super) r#type: String,
    /// The kind in words
    pub(super) title: &'static str,
    /// That of the answer
    pub(super) status: u16,
    /// What to do
    pub(super) detail: String,
    /// Why the operator of the server refuses, as a code: 1 to 64 of a-z 0-9 -
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// With `key-id-used` alone
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) high_water: Option<HighWaterMarks>,
}

/// The largest ids that the device has used for each kind of prekey
#[derive(Serialize, ToSchema)]
pub(super) struct HighWaterMarks {
    /// 0 if there was none
    one_time: u32,
    /// 0 if there was none
    one_time_kem: u32,
    signed: u32,
    last_resort: u32,
}

impl From<&KeyState> for HighWaterMarks {
    fn from(known: &KeyState) -> Self {
        Self {
            one_time: known.high_water,
            one_time_kem: known.high_water_kem,
            signed: known.signed.id,
            last_resort: known.last_resort.id,
        }
    }
}

/// What any request may be refused for.
pub(super) struct Refusals;

/// The same, and that nobody is shown who may.
pub(super) struct CredentialRefusals;

const ALWAYS: [(StatusCode, &str); 7] = [
    (StatusCode::BAD_REQUEST, "Not what the API asks for"),
    (StatusCode::NOT_FOUND, "There is nothing here"),
    (StatusCode::REQUEST_TIMEOUT, "The body came too slowly"),
    (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type"),
    (StatusCode::TOO_MANY_REQUESTS, "Over a limit; retry-after says when to try again"),
    (StatusCode::SERVICE_UNAVAILABLE, "Behind or stopping; retry-after says when to try again"),
];

fn responses(statuses: &[(StatusCode, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let problem = || ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let response = |(status, description): &(StatusCode, &str)| {
        let response = ResponseBuilder::new().description(*description);
        let response = response.content("application/problem+json", problem()).build();
        (status.as_u16().to_string(), RefOr::T(response))
    };
    statuses.iter().map(response).collect()
}

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        responses(&ALWAYS)
    }
}

impl IntoResponses for CredentialRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = responses(&ALWAYS);
        all.extend(responses(&[(StatusCode::UNAUTHORIZED, "No valid token or access key")]));
        all
    }
}

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_with(Default::default);
        let key = ApiKey::Header(ApiKeyValue::with_description(
            "access-key",
            "16 bytes in base64url: that of the recipient, without a device token",
        ));
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("device", bearer);
        components.add_security_scheme("access_key", SecurityScheme::ApiKey(key));
    }
}

/// What does not stand at a handler.
#[derive(OpenApi)]
#[openapi(
    info(title = "tuckseal-server", description = "Key distribution and relay of sealed messages"),
    components(schemas(Problem, HighWaterMarks)),
    modifiers(&Credentials)
)]
pub(super) struct Api;
