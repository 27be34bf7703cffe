//! `/v1/attachments`: upload by the tus protocol 1.0 (creation, expiration, termination), ranged download.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;

use super::App;
use super::body::Protobuf;
use super::error::Refusal;
use super::openapi::{CredentialRefusals, Problem, Refusals};
use super::path::Path;
use crate::metrics;
use crate::service::ServiceError;
use crate::service::accounts::Caller;
use crate::service::attachments::{AttachmentUse, Capability, refused};
use crate::storage::Upload;

const TUS_RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
const TUS_VERSION: HeaderName = HeaderName::from_static("tus-version");
const TUS_EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
const TUS_MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");
const OFFSET_TYPE: &str = "application/offset+octet-stream";

#[utoipa::path(
    options,
    path = "/v1/attachments",
    tag = "attachments",
    summary = "What is supported of tus",
    security(()),
    responses((status = 204, description = "In headers"), Refusals),
)]
pub(super) async fn options(State(app): State<Arc<App>>) -> Response {
    let headers = [
        (TUS_RESUMABLE, VERSION),
        (TUS_VERSION, VERSION),
        (TUS_EXTENSION, HeaderValue::from_static("creation,expiration,termination")),
        (TUS_MAX_SIZE, app.services.attachments.max_bytes.into()),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

#[utoipa::path(
    options,
    path = "/v1/attachments/{capability}",
    tag = "attachments",
    summary = "What is supported of tus",
    security(()),
    params(("capability" = String, Path, description = "As the slot named it")),
    responses((status = 204, description = "In headers"), Refusals),
)]
pub(super) async fn options_of(state: State<Arc<App>>) -> Response {
    options(state).await
}

#[utoipa::path(
    post,
    path = "/v1/attachments",
    tag = "attachments",
    summary = "Room for an attachment",
    security(("device" = [])),
    params(("tus-resumable" = String, Header, description = "1.0.0"), ("upload-length" = u64, Header, description = "Bytes")),
    responses((status = 201, description = "AttachmentSlot", body = Vec<u8>, content_type = "application/x-protobuf"), (status = 412, description = "Other version of tus", body = Problem, content_type = "application/problem+json"), CredentialRefusals),
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    speaks_tus(&headers)?;
    let size = number(&headers, &UPLOAD_LENGTH)?;
    let slot = app.services.attachments.create(&caller, size).await?;
    let answer = [
        (TUS_RESUMABLE, VERSION),
        (UPLOAD_EXPIRES, date(slot.expires_ms)?),
        (header::LOCATION, text(&slot.upload)?),
    ];
    Ok((StatusCode::CREATED, answer, Protobuf(slot)).into_response())
}

/// How far an upload has come, or how large an attachment is.
#[utoipa::path(
    head,
    path = "/v1/attachments/{capability}",
    tag = "attachments",
    summary = "How far an upload has come, or how large an attachment is",
    security(()),
    params(("capability" = String, Path, description = "As the slot named it"), ("tus-resumable" = String, Header, description = "1.0.0")),
    responses((status = 200, description = "In headers"), (status = 404, description = "No such attachment", body = Problem, content_type = "application/problem+json"), (status = 412, description = "Other version of tus", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn head(
    State(app): State<Arc<App>>,
    Path(capability): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let attachments = &app.services.attachments;
    let capability = attachments.capability(&capability)?;
    if capability.right == AttachmentUse::Download {
        let size = attachments.open(capability).await?.size();
        let answer = [
            (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
            (header::CONTENT_LENGTH, size.into()),
        ];
        return Ok((answer, Body::empty()).into_response());
    }
    speaks_tus(&headers)?;
    let offset = attachments.offset(capability).await?;
    let mut answer = progress(StatusCode::OK, capability, offset)?;
    let more = answer.headers_mut();
    more.insert(UPLOAD_LENGTH, capability.name.size.into());
    more.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

#[utoipa::path(
    patch,
    path = "/v1/attachments/{capability}",
    tag = "attachments",
    summary = "Bytes from an offset on",
    security(()),
    params(("capability" = String, Path, description = "As the slot named it"), ("tus-resumable" = String, Header, description = "1.0.0"), ("upload-offset" = u64, Header, description = "Bytes that were there before")),
    request_body(content = Vec<u8>, content_type = "application/offset+octet-stream"),
    responses((status = 204, description = "They are durable"), (status = 404, description = "No such attachment", body = Problem, content_type = "application/problem+json"), (status = 409, description = "Not the offset up to which it has come", body = Problem, content_type = "application/problem+json"), (status = 412, description = "Other version of tus", body = Problem, content_type = "application/problem+json"), (status = 423, description = "Another request writes", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Path(capability): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let headers = request.headers();
    speaks_tus(headers)?;
    let capability = to_upload(&app, &capability)?;
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != OFFSET_TYPE) {
        return Err(Refusal::Request(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send application/offset+octet-stream",
        ));
    }
    let begins = number(headers, &UPLOAD_OFFSET)?;
    if headers.contains_key(header::CONTENT_LENGTH) {
        let ends = begins.saturating_add(number(headers, &header::CONTENT_LENGTH)?);
        fits(ends, capability)?;
    }
    let attachments = &app.services.attachments;
    let (upload, offset) = match attachments.resume(capability).await {
        // The answer to the last part may have been lost.
        Err(ServiceError::NotFound(_))
            if begins == capability.name.size
                && attachments.offset(capability).await? == begins =>
        {
            return progress(StatusCode::NO_CONTENT, capability, begins);
        }
        resumed => resumed?,
    };
    if offset != begins {
        return Err(Refusal::Request(
            StatusCode::CONFLICT,
            "ask with HEAD how far the upload has come and go on from there",
        ));
    }
    let offset = receive(&app, upload, offset, capability, request.into_body()).await?;
    progress(StatusCode::NO_CONTENT, capability, offset)
}

/// Writes what comes. What has come stays, also when the connection breaks.
async fn receive(
    app: &App,
    mut upload: Upload,
    mut offset: u64,
    capability: Capability,
    body: Body,
) -> Result<u64, Refusal> {
    let patience = Duration::from_secs(app.services.limits.body_timeout_secs);
    let mut body = body.into_data_stream();
    let came = loop {
        let chunk = match tokio::time::timeout(patience, body.next()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => break Ok(()),
            Ok(Some(Err(_))) => {
                break Err(Refusal::Request(StatusCode::BAD_REQUEST, "the body broke off"));
            }
            Err(_) => {
                break Err(Refusal::Request(StatusCode::REQUEST_TIMEOUT, "send the body faster"));
            }
        };
        let ends = offset.saturating_add(chunk.len() as u64);
        if let Err(refusal) = fits(ends, capability) {
            break Err(refusal);
        }
        metrics::UPLOADED.add(chunk.len() as u64);
        upload.write(chunk).await.map_err(refused)?;
        offset = ends;
    };
    let whole = offset == capability.name.size;
    let kept = if whole { upload.finish().await } else { upload.pause().await };
    kept.map_err(refused)?;
    came.map(|()| offset)
}

#[utoipa::path(
    delete,
    path = "/v1/attachments/{capability}",
    tag = "attachments",
    summary = "Give an upload up",
    security(()),
    params(("capability" = String, Path, description = "As the slot named it"), ("tus-resumable" = String, Header, description = "1.0.0")),
    responses((status = 204, description = "It is gone"), (status = 404, description = "No such attachment", body = Problem, content_type = "application/problem+json"), (status = 412, description = "Other version of tus", body = Problem, content_type = "application/problem+json"), (status = 423, description = "Another request writes", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path(capability): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    speaks_tus(&headers)?;
    let capability = to_upload(&app, &capability)?;
    app.services.attachments.remove(capability).await?;
    Ok((StatusCode::NO_CONTENT, [(TUS_RESUMABLE, VERSION)]).into_response())
}

#[utoipa::path(
    get,
    path = "/v1/attachments/{capability}",
    tag = "attachments",
    summary = "An attachment, or one range of it",
    security(()),
    params(("capability" = String, Path, description = "As the slot named it"), ("range" = Option<String>, Header, description = "One range of bytes")),
    responses((status = 200, description = "All of it", body = Vec<u8>, content_type = "application/octet-stream"), (status = 206, description = "The range", body = Vec<u8>, content_type = "application/octet-stream"), (status = 404, description = "No such attachment, or not whole yet", body = Problem, content_type = "application/problem+json"), (status = 416, description = "No byte of the range is there", body = Problem, content_type = "application/problem+json"), Refusals),
)]
pub(super) async fn download(
    State(app): State<Arc<App>>,
    Path(capability): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let capability = app.services.attachments.capability(&capability)?;
    if capability.right != AttachmentUse::Download {
        return Err(ServiceError::NotFound("attachment").into());
    }
    let stored = app.services.attachments.open(capability).await?;
    let size = stored.size();
    let wanted = range(&headers, size)?;
    let (status, first, last) = match wanted {
        Some((first, last)) => (StatusCode::PARTIAL_CONTENT, first, last),
        None => (StatusCode::OK, 0, size.saturating_sub(1)),
    };
    let length = last.saturating_sub(first).saturating_add(1);
    let body = Body::from_stream(stored.read(first, length).await.map_err(refused)?);
    let answer = [
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, length.into()),
        (header::CACHE_CONTROL, HeaderValue::from_static("private, immutable")),
    ];
    let mut response = (status, answer, body).into_response();
    if wanted.is_some() {
        let place = text(&format!("bytes {first}-{last}/{size}"))?;
        response.headers_mut().insert(header::CONTENT_RANGE, place);
    }
    Ok(response)
}

/// The one range that is asked for; none if all is. Several, or another unit, count as none (RFC 9110 14.2).
fn range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let parts = asked.and_then(|asked| asked.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = parts else { return Ok(None) };
    let end = size.saturating_sub(1);
    let wanted = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => return Ok(None),
        (Ok(first), Ok(last)) => (first, last.min(end)),
        (Ok(first), Err(_)) if last.is_empty() => (first, end),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 => (size.saturating_sub(count), end),
        (Err(_), Ok(_)) if first.is_empty() => (size, end),
        _ => return Ok(None),
    };
    if wanted.0 < size { Ok(Some(wanted)) } else { Err(Refusal::Range(size)) }
}

fn to_upload(app: &App, capability: &str) -> Result<Capability, Refusal> {
    let capability = app.services.attachments.capability(capability)?;
    match capability.right {
        AttachmentUse::Upload => Ok(capability),
        AttachmentUse::Download => Err(ServiceError::NotFound("attachment").into()),
    }
}

fn fits(ends: u64, capability: Capability) -> Result<(), Refusal> {
    if ends <= capability.name.size {
        return Ok(());
    }
    Err(Refusal::Request(StatusCode::PAYLOAD_TOO_LARGE, "this is more than upload-length said"))
}

fn progress(status: StatusCode, capability: Capability, offset: u64) -> Result<Response, Refusal> {
    let answer = [
        (TUS_RESUMABLE, VERSION),
        (UPLOAD_OFFSET, offset.into()),
        (UPLOAD_EXPIRES, date(capability.name.expires_ms.unsigned_abs())?),
    ];
    Ok((status, answer).into_response())
}

fn speaks_tus(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.get(TUS_RESUMABLE).is_some_and(|version| version == VERSION) {
        return Ok(());
    }
    Err(Refusal::TusVersion)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Refusal> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    let digits = value.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or(Refusal::Request(
        StatusCode::BAD_REQUEST,
        "upload-length, upload-offset and content-length are numbers of bytes",
    ))
}

fn date(ms: u64) -> Result<HeaderValue, Refusal> {
    text(&httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms)))
}

/// Numbers, paths and dates of our own are always good as a header.
fn text(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|_| ServiceError::Invalid("no header value").into())
}
