//! Taking requests apart, so that what is wrong with one is said in its answer.

use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// Largest JSON body; the longest legal request is far smaller.
const MAX_JSON: usize = 1 << 20;

/// A JSON body. An absent or empty one is `{}`, as SDKs send it when every field is
/// left out. Unknown fields are refused by name.
pub(crate) struct Body<T>(pub T);

impl<S, T> FromRequest<S> for Body<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let request =
            request.map(|body| axum::body::Body::new(http_body_util::Limited::new(body, MAX_JSON)));
        let bytes = Bytes::from_request(request, state).await.map_err(|_| {
            ApiError::schema(format!(
                "the body is longer than {MAX_JSON} bytes or broke off"
            ))
        })?;
        let bytes = if bytes.iter().all(u8::is_ascii_whitespace) {
            Bytes::from_static(b"{}")
        } else {
            bytes
        };
        let value =
            named(&bytes).map_err(|error| ApiError::schema(format!("invalid body: {error}")))?;
        Ok(Body(value))
    }
}

/// Reads JSON; an error names the field that it is about.
pub(crate) fn named<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

/// A query string. Unknown parameters are refused by name.
pub(crate) struct Query<T>(pub T);

impl<S, T> FromRequestParts<S> for Query<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri)
            .map(|query| Query(query.0))
            .map_err(|error| ApiError::schema(format!("invalid query: {}", error.body_text())))
    }
}

/// The key in the path: an id, a name, or the beginning of an id.
pub(crate) struct Key(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Path::<String>::from_request_parts(parts, state)
            .await
            .map(|path| Key(path.0))
            .map_err(|error| ApiError::schema(format!("invalid path: {}", error.body_text())))
    }
}

/// A websocket, if the request asks for one. Whether it does is only looked at after
/// the instance: a client that cannot have the websocket is told the reason.
pub(crate) struct Upgrade(pub Result<WebSocketUpgrade, ApiError>);

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let upgrade = WebSocketUpgrade::from_request_parts(parts, state).await;
        Ok(Self(upgrade.map_err(|error| {
            ApiError::schema(format!(
                "this path takes a websocket: {}",
                error.body_text()
            ))
        })))
    }
}
