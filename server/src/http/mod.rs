//! The API on HTTP (docs/server-api.md): thin. A handler extracts, calls one service, answers.

mod accounts;
pub(crate) mod acme;
mod attachments;
mod auth;
mod body;
mod certificates;
mod commit;
mod connections;
mod devices;
mod error;
mod health;
mod ids;
mod keys;
mod messages;
mod openapi;
mod path;
mod patience;
mod push;
mod reports;
mod stream;
pub(crate) mod tls;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use utoipa::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub(crate) use connections::accept;

use crate::service::{ServiceError, Services};
use crate::storage::{Store, StoreError};
use error::Refusal;

/// Requests that carry no body to speak of.
const SMALL_BODY: usize = 4096;

/// What handlers work with.
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) store: Arc<dyn Store>,
    /// No other node is on the store.
    pub(crate) alone: bool,
    /// What is there is delivered, and nothing is taken in.
    pub(crate) read_only: bool,
    /// Cancelled first when the server is to stop: balancers are told.
    pub(crate) draining: CancellationToken,
    /// Cancelled next: streams leave, and no new one is opened.
    pub(crate) leaving: CancellationToken,
    /// Cancelled last: nothing is accepted any more.
    pub(crate) stopping: CancellationToken,
    /// Connections and streams that are open.
    pub(crate) open: TaskTracker,
}

/// The counters, on a port of their own.
pub(crate) fn metrics_router() -> Router {
    let text = || async {
        let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        (kind, crate::metrics::text())
    };
    Router::new()
        .route("/metrics", get(text))
        .fallback(error::no_such_resource)
        .method_not_allowed_fallback(error::no_such_method)
}

/// The routes. Each has the body limit that it needs.
pub(crate) fn router(app: Arc<App>) -> Router {
    let limit = |bytes: u64| DefaultBodyLimit::max(usize::try_from(bytes).unwrap_or(usize::MAX));
    let keys_limit = limit(app.services.limits.max_keys_bytes);
    let submission_limit = limit(app.services.limits.max_submission_bytes);
    let (router, api) = OpenApiRouter::with_openapi(openapi::Api::openapi())
        .routes(routes!(accounts::register).layer(keys_limit))
        .routes(routes!(devices::list, devices::register).layer(keys_limit))
        .routes(routes!(keys::counts, keys::upload).layer(keys_limit))
        .routes(routes!(messages::submit).layer(submission_limit))
        .routes(routes!(messages::submit_multi).layer(submission_limit))
        .routes(routes!(devices::open_link))
        .routes(routes!(devices::linked))
        .routes(routes!(devices::rename))
        .routes(routes!(devices::remove))
        .routes(routes!(certificates::server_info))
        .routes(routes!(accounts::challenge))
        .routes(routes!(keys::fetch))
        .routes(routes!(certificates::sender))
        .routes(routes!(accounts::by_name))
        .routes(routes!(attachments::options, attachments::create))
        .routes(routes!(
            attachments::head,
            attachments::download,
            attachments::upload,
            attachments::remove,
            attachments::options_of
        ))
        .routes(routes!(push::register, push::unregister))
        .routes(routes!(reports::tokens))
        .routes(routes!(reports::report))
        .routes(routes!(stream::open))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .split_for_parts();
    // It serialises: it is made of maps and strings.
    let api: Bytes = api.to_json().unwrap_or_default().into();
    let kind = [(header::CONTENT_TYPE, "application/json")];
    router
        .route("/openapi.json", get(|| async move { (kind, api) }))
        .fallback(error::no_such_resource)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(SMALL_BODY))
        .layer(from_fn_with_state(Arc::clone(&app), read_only))
        .layer(from_fn(trace::request))
        .with_state(app)
}

/// Requests that change something are refused while nothing is taken in. The store refuses what comes by another way.
async fn read_only(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    if app.read_only && !request.method().is_safe() {
        return Err(ServiceError::Store(StoreError::ReadOnly).into());
    }
    Ok(next.run(request).await)
}
