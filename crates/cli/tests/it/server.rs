//! A server that answers what a test tells it to, and remembers what it was
//! asked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use api::error::ErrorBody;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::{copies, execs};

/// Starts with answers for each `METHOD /path?query`; anything else is not
/// found.
#[derive(Default)]
pub(crate) struct Script {
    answers: HashMap<String, Answer>,
}

#[derive(Clone)]
struct Answer {
    status: StatusCode,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

impl Script {
    pub(crate) fn ok(self, request: &str, body: &impl Serialize) -> Self {
        let body = serde_json::to_string(body).expect("fixtures serialise");
        self.raw(request, 200, &[("content-type", "application/json")], body)
    }

    pub(crate) fn empty(self, request: &str) -> Self {
        self.raw(request, 204, &[], String::new())
    }

    pub(crate) fn error(self, request: &str, status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::to_string(&ErrorBody::new(code, message)).expect("it serialises");
        self.raw(request, status, &[("x-should-retry", "false")], body)
    }

    pub(crate) fn raw(
        mut self,
        request: &str,
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: String,
    ) -> Self {
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.to_vec(),
            body,
        };
        self.answers.insert(request.to_owned(), answer);
        self
    }

    /// Serves on a free port.
    pub(crate) fn serve(self) -> Fake {
        let runtime = runtime();
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let (router, shared) = self.router();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Fake {
            address,
            shared,
            _runtime: runtime,
        }
    }

    /// Serves on a unix socket.
    pub(crate) fn serve_unix(self, path: &Path) -> Fake {
        let runtime = runtime();
        let listener = runtime
            .block_on(async { tokio::net::UnixListener::bind(path) })
            .expect("a socket");
        let address = format!("unix://{}", path.display());
        let (router, shared) = self.router();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Fake {
            address,
            shared,
            _runtime: runtime,
        }
    }

    fn router(self) -> (Router, Arc<Shared>) {
        let shared = Arc::new(Shared {
            answers: self.answers,
            asked: Mutex::default(),
        });
        let router = Router::new()
            .route("/instances/{id}/exec", any(execs::serve))
            .route("/instances/{id}/cp", any(copies::serve))
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        (router, shared)
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// A server that runs until it is dropped.
pub(crate) struct Fake {
    pub(crate) address: String,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Fake {
    /// What it was asked so far, one request a line.
    pub(crate) fn asked(&self) -> String {
        self.shared.lock().join("\n")
    }
}

pub(crate) struct Shared {
    answers: HashMap<String, Answer>,
    asked: Mutex<Vec<String>>,
}

impl Shared {
    pub(crate) fn note(&self, line: String) {
        self.lock().push(line);
    }

    /// The scripted answer to a request, if there is one.
    pub(crate) fn scripted(&self, request: &str) -> Option<Response> {
        let answer = self.answers.get(request)?.clone();
        let mut response = (answer.status, answer.body).into_response();
        for (name, value) in answer.headers {
            let value = value.parse().expect("a header value");
            response.headers_mut().insert(name, value);
        }
        Some(response)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = format!("{method} {uri}");
    let mut line = request.clone();
    if let Some(token) = headers.get("authorization") {
        line.push_str(&format!(" [{}]", token.to_str().expect("ASCII")));
    }
    match headers.get("content-type").map(|value| value.as_bytes()) {
        Some(b"application/x-tar") => line.push_str(&format!(" {}", list_tar(&body))),
        _ if body.is_empty() => {}
        _ => line.push_str(&format!(" {}", String::from_utf8_lossy(&body))),
    }
    shared.note(line);
    shared.scripted(&request).unwrap_or_else(|| {
        let body = ErrorBody::new("not_found", "resource not found");
        (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
    })
}

fn list_tar(body: &[u8]) -> String {
    let mut archive = tar::Archive::new(body);
    let mut names: Vec<String> = archive
        .entries()
        .expect("an archive")
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        })
        .collect();
    names.sort();
    names.join(" ")
}
