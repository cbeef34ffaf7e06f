//! One count and one time for each request, by route, never by raw path: paths hold
//! names that clients choose.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

/// Counts and times a request.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().to_string();
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let response = next.run(request).await;
    crate::metrics::request(method, path, response.status().as_u16(), began.elapsed());
    response
}
