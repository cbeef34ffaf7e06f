//! Raw calls: what the wire says, not what a client makes of it.

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::Daemon;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body; null when there is none, a string when it is not JSON.
    pub body: Value,
}

impl Answer {
    async fn read(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        // A websocket that was opened has no body to wait for.
        let text = if status == 101 {
            String::new()
        } else {
            response.text().await.expect("a body")
        };
        let body = if text.is_empty() {
            Value::Null
        } else {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        };
        Self {
            status,
            headers,
            body,
        }
    }

    /// A field of the body as text; empty when it is not there.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }

    /// The error's code.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text("code")
    }

    /// The error's message.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text("message")
    }

    /// What the answer says about trying again.
    #[must_use]
    pub fn should_retry(&self) -> Option<&str> {
        self.headers.get("x-should-retry")?.to_str().ok()
    }

    /// Checks a success and gives its body.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{:?}", self.body);
        self.body
    }

    /// Checks a refusal for good and gives its message.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &str {
        assert_eq!(
            (self.status, self.code()),
            (status, code),
            "{:?}",
            self.body
        );
        assert!(!self.message().is_empty(), "a refusal says why");
        self.message()
    }

    /// Checks a 409 of the state, which no waiting changes, and gives its message.
    #[track_caller]
    pub fn conflict(&self) -> &str {
        let message = self.refused(409, "invalid_state");
        assert_eq!(self.should_retry(), Some("false"), "{message}");
        message
    }
}

impl Daemon {
    /// One request over the unix socket.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let mut request = self.http.request(method, format!("http://localhost{path}"));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        Answer::read(request.send().await.expect("the daemon answers")).await
    }

    /// One request over TCP, with a token or without.
    pub async fn call_tcp(&self, method: Method, path: &str, token: Option<&str>) -> Answer {
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.url()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        Answer::read(request.send().await.expect("the daemon answers")).await
    }

    /// Sends a request and does not wait for what becomes of it.
    pub fn send_off(&self, method: &str, path: &str, body: Value) -> tokio::task::JoinHandle<()> {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self
            .http
            .request(method, format!("http://localhost{path}"))
            .header("content-type", "application/json")
            .body(body.to_string());
        tokio::spawn(async move {
            // Whoever kills the daemon meanwhile does not mind.
            let _ = request.send().await;
        })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// POST without a body.
    pub async fn act(&self, instance: &str, action: &str) -> Answer {
        let path = format!("/instances/{instance}/{action}");
        self.call(Method::POST, &path, None).await
    }

    /// DELETE of an instance.
    pub async fn delete(&self, instance: &str) -> Answer {
        let path = format!("/instances/{instance}");
        self.call(Method::DELETE, &path, None).await
    }

    /// A fork, with the answer as it comes.
    pub async fn fork(&self, instance: &str, request: Value) -> Answer {
        self.post(&format!("/instances/{instance}/fork"), request)
            .await
    }

    /// The instance as it is shown.
    pub async fn show(&self, instance: &str) -> Value {
        self.get(&format!("/instances/{instance}"))
            .await
            .expect(200)
    }

    /// The state that is shown.
    pub async fn state(&self, instance: &str) -> String {
        let shown = self.show(instance).await;
        shown["state"].as_str().unwrap_or_default().to_owned()
    }

    /// The opening of a websocket, with the answer as it comes.
    pub async fn knock(&self, path: &str) -> Answer {
        let request = self
            .http
            .get(format!("http://localhost{path}"))
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
        Answer::read(request.send().await.expect("the daemon answers")).await
    }
}
