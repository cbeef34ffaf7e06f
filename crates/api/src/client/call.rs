//! One request and its answer: the address, the token, time limits, retries.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Body, Method, RequestBuilder, Response, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

use super::retry::{self, Repeat};
use super::{Address, ClientError};
use crate::error::ErrorBody;

/// Longest wait for an answer that needs no work, as public SDKs have it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Longest wait for a connection, as public SDKs have it.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How long the server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// It only has to look something up.
    Short,
    /// As long as the work takes.
    Endless,
}

/// A typed client of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    address: Arc<Address>,
    base: Url,
}

impl Client {
    /// A client of the server at `address`. A unix socket asks for no token.
    pub fn new(address: Address, token: Option<&str>) -> Result<Self, ClientError> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| ClientError::Token)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // A proxy for the world is of no use towards a server of one's own.
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_LIMIT)
            .user_agent(concat!("coppice/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        if let Address::Unix(path) = &address {
            builder = builder.unix_socket(path.as_path());
        }
        Ok(Self {
            http: builder.build().map_err(ClientError::Transport)?,
            base: address.base(),
            address: Arc::new(address),
        })
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn get(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::GET, Repeat::Harmless, path)
    }

    pub(super) fn post(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::POST, Repeat::IfTold, path)
    }

    pub(super) fn patch(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::PATCH, Repeat::IfTold, path)
    }

    pub(super) fn delete(&self, path: &[&str]) -> Call<'_> {
        self.call(Method::DELETE, Repeat::IfTold, path)
    }

    fn call(&self, method: Method, repeat: Repeat, path: &[&str]) -> Call<'_> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        Call {
            client: self,
            method,
            repeat,
            url,
            headers: HeaderMap::new(),
            body: None,
            patience: Patience::Short,
        }
    }
}

/// A request in the making.
pub(super) struct Call<'c> {
    client: &'c Client,
    method: Method,
    repeat: Repeat,
    url: Url,
    headers: HeaderMap,
    body: Option<Bytes>,
    patience: Patience,
}

impl Call<'_> {
    /// Adds what serialises to pairs; absent options are left out.
    pub(super) fn query(mut self, query: &impl Serialize) -> Result<Self, ClientError> {
        let pairs = serde_json::to_value(query).map_err(ClientError::Decode)?;
        // An empty list would still add a question mark.
        if let Some(pairs) = pairs.as_object().filter(|pairs| !pairs.is_empty()) {
            let mut encoded = self.url.query_pairs_mut();
            for (name, value) in pairs {
                match value {
                    serde_json::Value::String(text) => encoded.append_pair(name, text),
                    other => encoded.append_pair(name, &other.to_string()),
                };
            }
        }
        Ok(self)
    }

    /// Sets the query as it goes over the wire.
    pub(super) fn raw_query(mut self, query: &str) -> Self {
        self.url.set_query((!query.is_empty()).then_some(query));
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    pub(super) fn json(mut self, body: &impl Serialize) -> Result<Self, ClientError> {
        self.body = Some(
            serde_json::to_vec(body)
                .map_err(ClientError::Decode)?
                .into(),
        );
        self.headers
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(self)
    }

    pub(super) fn endless(mut self) -> Self {
        self.patience = Patience::Endless;
        self
    }

    /// Sends it, again if that may help, and reads the answer's content.
    pub(super) async fn decode<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let client = self.client;
        let response = self.send().await?;
        let content = response.bytes().await.map_err(|e| client.broken(e))?;
        serde_json::from_slice(&content).map_err(ClientError::Decode)
    }

    /// Sends it, again if that may help; an error answer is an error.
    pub(super) async fn send(self) -> Result<Response, ClientError> {
        let mut attempt = 0;
        loop {
            let outcome = self.request().send().await;
            let pause = match &outcome {
                Ok(response) => retry::pause(
                    self.repeat,
                    response.status().as_u16(),
                    response.headers(),
                    attempt,
                    jitter(),
                    OffsetDateTime::now_utc(),
                ),
                // A server that is not there will not be there in a second.
                Err(error) if error.is_connect() => None,
                Err(_) if self.repeat == Repeat::Harmless && attempt < retry::MAX_RETRIES => {
                    Some(retry::own_pause(attempt, jitter()))
                }
                Err(_) => None,
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return self.client.judge(outcome).await,
            }
            attempt += 1;
        }
    }

    /// Sends it with a body that can be read only once.
    pub(super) async fn send_stream(self, body: Body) -> Result<Response, ClientError> {
        let outcome = self.request().body(body).send().await;
        self.client.judge(outcome).await
    }

    fn request(&self) -> RequestBuilder {
        let mut request = self
            .client
            .http
            .request(self.method.clone(), self.url.clone())
            .headers(self.headers.clone());
        if self.patience == Patience::Short {
            request = request.timeout(ANSWER_LIMIT);
        }
        if let Some(body) = &self.body {
            request = request.body(body.clone());
        }
        request
    }
}

impl Client {
    /// Tells answers from refusals and failures.
    async fn judge(&self, outcome: reqwest::Result<Response>) -> Result<Response, ClientError> {
        let response = outcome.map_err(|error| self.broken(error))?;
        let status = response.status();
        // 101 is what a websocket is opened with.
        if status.is_success() || status.as_u16() == 101 {
            return Ok(response);
        }
        let content = response.bytes().await.unwrap_or_default();
        let body = serde_json::from_slice(&content).unwrap_or_else(|_| {
            let reason = status.canonical_reason().unwrap_or("an unknown status");
            ErrorBody::new(reason, format!("the server answered {status}"))
        });
        Err(ClientError::Refused {
            status: status.as_u16(),
            body: Box::new(body),
        })
    }

    pub(super) fn broken(&self, error: reqwest::Error) -> ClientError {
        if error.is_connect() {
            ClientError::Connect {
                address: self.address.to_string(),
                source: error.without_url(),
            }
        } else if error.is_timeout() {
            ClientError::TimedOut(ANSWER_LIMIT)
        } else {
            ClientError::Transport(error.without_url())
        }
    }
}

/// A number in 0..1 that differs between clients; nothing depends on it being
/// hard to guess.
fn jitter() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |now| f64::from(now.subsec_micros() % 1000) / 1000.0)
}
