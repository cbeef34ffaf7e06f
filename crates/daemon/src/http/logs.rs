//! Logs as server-sent events: each line one event whose data is a JSON string.

use std::convert::Infallible;

use api::instances::{LogSource as Wanted, LogsQuery};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;

use super::App;
use super::error::ApiError;
use super::extract::{Key, Query};
use crate::instances::{LogSource, OpError};
use crate::logs::{Lines, OpenError};

/// Lines from the end when the request does not say.
const DEFAULT_TAIL: u32 = 100;

/// Read a log of an instance.
#[utoipa::path(get, path = "/instances/{id}/logs", operation_id = "getInstanceLogs", tag = "instances", params(("id" = String, Path), LogsQuery),
    responses((status = 200, content_type = "text/event-stream", body = String), (status = 404, body = api::error::ErrorBody)))]
pub(crate) async fn logs(
    State(app): State<App>,
    Key(key): Key,
    Query(query): Query<LogsQuery>,
) -> Result<Response, ApiError> {
    let id = app.instances.find(&key).await?;
    let source = match query.source.unwrap_or_default() {
        Wanted::App => LogSource::App,
        Wanted::Vmm => LogSource::Vmm,
        Wanted::Console => LogSource::Console,
        Wanted::Coppice => LogSource::Operations,
    };
    let path = app.layout.instance(&id).log(source);
    let tail = query.tail.unwrap_or(DEFAULT_TAIL);
    let lines = Lines::open(&path, tail, query.follow.unwrap_or(false))
        .await
        .map_err(|error| match error {
            OpenError::Missing => ApiError::no_log("this log was never written"),
            OpenError::Io(error) => OpError::disk("cannot read the log")(error).into(),
        })?;
    let events = lines.into_stream().map(|line| {
        // The SDKs decode each event's data as JSON.
        let data = serde_json::Value::String(line).to_string();
        Ok::<_, Infallible>(Event::default().data(data))
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    Ok(response)
}
