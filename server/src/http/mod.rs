//! The API on HTTP (docs/server-api.md): thin. A handler extracts, calls one service, answers.

mod accounts;
mod attachments;
mod auth;
mod body;
mod certificates;
mod connections;
mod error;
mod health;
mod keys;
mod messages;
mod push;
mod stream;
pub(crate) mod tls;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::middleware::from_fn;
use axum::routing::{get, head, options, post, put};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use connections::accept;

use crate::service::Services;
use crate::storage::Store;

/// Requests that carry no body to speak of.
const SMALL_BODY: usize = 4096;

/// What handlers work with.
pub(crate) struct App {
    pub(crate) services: Services,
    pub(crate) store: Arc<dyn Store>,
    /// Cancelled when the server is to stop.
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
    Router::new()
        .route("/v1/accounts", post(accounts::register).layer(keys_limit))
        .route("/v1/keys", get(keys::counts).put(keys::upload).layer(keys_limit))
        .route("/v1/messages/{account}", put(messages::submit).layer(submission_limit))
        .route("/v1/messages/multi", put(messages::submit_multi).layer(submission_limit))
        .route("/v1/server", get(certificates::server_info))
        .route("/v1/challenges", post(accounts::challenge))
        .route("/v1/keys/{account}/{device}", get(keys::fetch))
        .route("/v1/certificates/sender", get(certificates::sender))
        .route("/v1/usernames/{name}", get(accounts::by_name))
        .route("/v1/attachments", options(attachments::options).post(attachments::create))
        .route(
            "/v1/attachments/{capability}",
            head(attachments::head)
                .get(attachments::download)
                .patch(attachments::upload)
                .delete(attachments::remove)
                .options(attachments::options),
        )
        .route("/v1/push", put(push::register).delete(push::unregister))
        .route("/v1/stream", get(stream::open))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .fallback(error::no_such_resource)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(SMALL_BODY))
        .layer(from_fn(trace::request))
        .with_state(app)
}
