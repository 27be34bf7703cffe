//! One log line a request: method, route template, status, duration. No path, no header, no address.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

pub(super) async fn request(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    crate::metrics::request(route, response.status().as_u16(), begun.elapsed());
    // An invented method is text of the caller's.
    let method = if is_known(&method) { method.as_str() } else { "other" };
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(method, route, status = response.status().as_u16(), micros, "request");
    response
}

fn is_known(method: &axum::http::Method) -> bool {
    use axum::http::Method;
    [
        Method::GET,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
    ]
    .contains(method)
}
