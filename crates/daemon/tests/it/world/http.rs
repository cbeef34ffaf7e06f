//! Requests to the daemon, without a socket between.

use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::response::Response;
use serde_json::Value;
use tower::ServiceExt as _;

use super::World;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `x-should-retry`.
    pub(crate) retry: Option<String>,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The code of an error, else nothing.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        body["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn message(&self) -> String {
        let body = self.json();
        body["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The body of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{self:?}");
        self.json()
    }

    /// Asserts that it is an error of this kind.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{self:?}"
        );
        self.message()
    }
}

/// A request with a token that lets everything.
pub(crate) fn request(
    token: &str,
    method: &str,
    path: &str,
    body: Option<String>,
) -> Request<Body> {
    let method: Method = method.parse().unwrap();
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.map_or_else(Body::empty, Body::from))
        .unwrap()
}

impl World {
    /// One request; none if the daemon ended before it answered.
    pub(crate) async fn try_send(&self, request: Request<Body>) -> Option<Answer> {
        let router = self.daemon().router.clone();
        let work = self.daemon().runtime().spawn(async move {
            // The router never fails, it answers.
            read(router.oneshot(request).await.unwrap()).await
        });
        tokio::select! {
            answer = work => answer.ok(),
            () = self.gate.stopped() => None,
        }
    }

    pub(crate) async fn try_call(&self, method: &str, path: &str, body: &str) -> Option<Answer> {
        let token = &self.daemon().token;
        let body = (!body.is_empty()).then(|| body.to_owned());
        self.try_send(request(token, method, path, body)).await
    }

    pub(crate) async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_call(method, path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, &body.to_string()).await
    }
}

async fn read(response: Response) -> Answer {
    let (parts, body) = response.into_parts();
    let header = |name: &str| {
        let value = parts.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    let (status, retry) = (parts.status.as_u16(), header("x-should-retry"));
    let content_type = header("content-type").unwrap_or_default();
    let bytes = axum::body::to_bytes(body, 16 << 20).await.unwrap();
    Answer {
        status,
        retry,
        content_type,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}
