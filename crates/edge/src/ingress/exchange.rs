//! One request and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

use super::body::{AnswerBody, RequestBody};
use super::connection::Client;
use super::headers;
use super::page::{Page, wants_html};
use super::pool::Borrowed;
use super::reach::{Reached, reach};
use super::routes::{Route, Scheme};
use super::upgrade::{self, Upgrade};
use crate::access_log::Record;
use crate::config::{Hostname, Limits, Rule};
use crate::directory::Known;

/// Answers a request, whatever happens.
pub(super) async fn answer(
    client: &Arc<Client>,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let mut record = Record::new(client.edge.log(), client.address);
    record.line.scheme = client.scheme.as_str();
    record.line.protocol = match request.version() {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    record.line.method = request.method().as_str().chars().take(32).collect();
    record.line.port = client.port;
    record.set_path(request.uri().path());
    let html = wants_html(request.headers());
    let outcome = proxy(client, request, &mut record).await;
    let mut response = outcome.unwrap_or_else(|page| {
        record.broke(&page.what);
        page.answer(html)
    });
    let status = response.status().as_u16();
    record.answered(status);
    client
        .edge
        .metrics()
        .request(status, record.started.elapsed());
    response.body_mut().set_record(record);
    response
}

async fn proxy(
    client: &Arc<Client>,
    request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<AnswerBody>, Page> {
    let (mut parts, body) = request.into_parts();
    let authority = authority(&parts)?;
    let text = authority.to_str().unwrap_or_default();
    let host = Hostname::from_authority(text).map_err(|error| {
        Page::new(
            StatusCode::BAD_REQUEST,
            format!("The request's host cannot be used: {error}."),
            "",
        )
    })?;
    host.as_str().clone_into(&mut record.line.host);
    let live = client.edge.live();
    let (rule, captured) = match live.routes.find(client.port, &host, client.scheme) {
        Route::Proxy(rule, captured) => (rule, captured),
        Route::Redirect(port) => return Err(redirect(&host, port, &parts.uri)),
        Route::WrongScheme(wanted) => return Err(wrong_scheme(wanted, &host)),
        Route::Unknown => {
            return Err(Page::new(
                StatusCode::NOT_FOUND,
                format!("No ingress answers for {host} on port {}.", client.port),
                "Check the host name, or make an ingress for it with: coppice ingress create.",
            ));
        }
    };
    record.line.rule = Some(rule.id.clone());
    check_certificate(client, &host)?;
    check_auth(&rule, &mut parts.headers)?;
    check_framing(&parts)?;
    let name = rule.target.instance.resolve(&captured);
    record.line.instance = Some(name.to_owned());

    let limits = &live.config.ingress.limits;
    let protocol = headers::upgrade(&parts.headers).filter(|_| parts.version == Version::HTTP_11);
    let upgrade = protocol.map(|protocol| Upgrade::new(protocol, &mut parts.extensions));
    let parts = towards_guest(parts, client, authority, upgrade.as_ref());
    let body = RequestBody::new(body, limits.idle());
    let received = body.counter();
    record.received = Some(Arc::clone(&received));

    let reached = reach(&client.edge, client.lane, &rule, name).await?;
    record.line.instance = Some(match &reached.known.entry.name {
        Some(name) => name.to_string(),
        None => reached.known.entry.id.to_string(),
    });
    let sent = send(
        client,
        &rule,
        name,
        reached,
        Request::from_parts(parts, body),
    );
    let Answered {
        response,
        connection,
        known,
    } = await_answer(sent, &received, limits)
        .await
        .map_err(|failure| failure.page(name, rule.target.port))?;
    towards_client(response, connection, client, upgrade, &known, limits)
}

/// The host and port that a request is for.
fn authority(parts: &Parts) -> Result<HeaderValue, Page> {
    let bad = |what: &str| Page::new(StatusCode::BAD_REQUEST, what, "");
    if parts.method == Method::CONNECT {
        return Err(Page::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is for forward proxies; this is none.",
            "",
        ));
    }
    // What is in the request's line counts more than the header (RFC 9112, 3.2.2).
    if let Some(authority) = parts.uri.authority() {
        return HeaderValue::from_str(authority.as_str())
            .map_err(|_| bad("The request's host cannot be used."));
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(host.clone()),
        (None, _) => Err(bad("The request does not say which host it is for.")),
        (Some(_), Some(_)) => Err(bad("The request says twice which host it is for.")),
    }
}

fn redirect(host: &Hostname, port: u16, uri: &Uri) -> Page {
    let port = match port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let target = format!("https://{host}{port}{path}");
    let mut page = Page::new(
        StatusCode::PERMANENT_REDIRECT,
        "This site speaks HTTPS only.",
        "",
    );
    page.location = HeaderValue::from_str(&target).ok();
    page
}

fn wrong_scheme(wanted: Scheme, host: &Hostname) -> Page {
    let wanted = wanted.as_str();
    Page::new(
        StatusCode::BAD_REQUEST,
        format!("{host} is not served that way on this port."),
        format!("Use {wanted}:// instead."),
    )
}

/// A client may only ask for what its handshake was for: another host may have another certificate,
/// and whoever looked at the name of the handshake alone has let it pass.
fn check_certificate(client: &Client, host: &Hostname) -> Result<(), Page> {
    if client.scheme == Scheme::Http || client.server_name.as_deref() == Some(host.as_str()) {
        return Ok(());
    }
    let certificates = client.edge.certificates();
    let now = client
        .server_name
        .as_deref()
        .and_then(|name| certificates.find(name));
    let shown = now.or(client.certificate.as_ref());
    match (certificates.find(host.as_str()), shown) {
        (Some(wanted), Some(shown)) if Arc::ptr_eq(wanted, shown) => Ok(()),
        _ => Err(Page::new(
            StatusCode::MISDIRECTED_REQUEST,
            "The connection was made for another host name.",
            "Use a new connection.",
        )),
    }
}

/// Compares in constant time and takes the secret away.
fn check_auth(rule: &Rule, headers: &mut HeaderMap) -> Result<(), Page> {
    let Some(auth) = &rule.header_auth else {
        return Ok(());
    };
    let mut given = headers.get_all(auth.header()).iter();
    let fits = match (given.next(), given.next()) {
        (Some(value), None) => bool::from(value.as_bytes().ct_eq(auth.value().as_bytes())),
        _ => false,
    };
    headers.remove(auth.header());
    if fits {
        return Ok(());
    }
    Err(Page::new(
        StatusCode::FORBIDDEN,
        "The request lacks the header that this host asks for, or has another value in it.",
        "",
    ))
}

/// Two lengths in one request are an attempt to have two servers disagree (RFC 9112, 6.3).
fn check_framing(parts: &Parts) -> Result<(), Page> {
    let both = parts.headers.contains_key(header::TRANSFER_ENCODING)
        && parts.headers.contains_key(header::CONTENT_LENGTH);
    if both {
        return Err(Page::new(
            StatusCode::BAD_REQUEST,
            "The request says twice how long it is.",
            "",
        ));
    }
    Ok(())
}

/// The head of the request as the guest gets it.
fn towards_guest(
    mut parts: Parts,
    client: &Client,
    authority: HeaderValue,
    upgrade: Option<&Upgrade>,
) -> Parts {
    let trailers = headers::takes_trailers(&parts.headers);
    headers::strip_hop_by_hop(&mut parts.headers);
    // We have told the client to go on when the guest asks for the body.
    parts.headers.remove(header::EXPECT);
    headers::join_cookies(&mut parts.headers);
    headers::set_forwarded(
        &mut parts.headers,
        client.address,
        client.scheme,
        &authority,
    );
    parts.headers.insert(header::HOST, authority);
    if trailers {
        parts
            .headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if let Some(upgrade) = upgrade {
        headers::set_upgrade(&mut parts.headers, upgrade.protocol.clone());
    }
    // A path as it came, without host: every part of a parsed address is valid by itself.
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map_or_else(Uri::default, Uri::from);
    parts.version = Version::HTTP_11;
    parts
}

/// Why a guest did not answer.
enum Failure {
    /// The connection broke.
    Broken(hyper::Error),
    /// A second connection, after the first broke before it was used, could not be made.
    Gone(std::io::Error),
    /// The machine that had the request is over, and there is none that can have it now.
    Over(Page),
    /// Nothing came in time.
    Silent(std::time::Duration),
}

impl Failure {
    fn page(self, name: &str, port: u16) -> Page {
        match self {
            Self::Over(page) => page,
            Self::Broken(error) if error.is_parse() => Page::new(
                StatusCode::BAD_GATEWAY,
                format!("What instance {name} answers on port {port} is no HTTP/1.1: {error}."),
                "Does the port speak TLS or another protocol? The target must be plain HTTP.",
            ),
            Self::Broken(_) => Page::new(
                StatusCode::BAD_GATEWAY,
                format!("Instance {name} closed the connection on port {port} before it answered."),
                "The program may have crashed, or the instance stopped; its log says more.",
            )
            .retry(1),
            Self::Gone(error) => Page::new(
                StatusCode::BAD_GATEWAY,
                format!(
                    "Instance {name} does not accept connections on port {port} any more: {error}."
                ),
                "The program may have ended; its log says more.",
            )
            .retry(1),
            Self::Silent(limit) => Page::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!(
                    "Instance {name} took the request on port {port} and has not answered for {limit:?}."
                ),
                "The program may be overloaded or stuck.",
            ),
        }
    }
}

/// What a guest answers.
struct Answered {
    response: Response<Incoming>,
    connection: Borrowed,
    /// The machine that answers.
    known: Arc<Known>,
}

/// Sends the request; once more if the connection turned out to be dead before it was used, and to
/// the machine that the instance is next if the one that had it went to sleep or ended.
async fn send(
    client: &Client,
    rule: &Rule,
    name: &str,
    mut reached: Reached,
    mut request: Request<RequestBody>,
) -> Result<Answered, Failure> {
    loop {
        let Reached {
            known,
            key,
            mut connection,
        } = reached;
        let spare = spare(&request);
        let mut failed = match connection.sender.try_send_request(request).await {
            Ok(response) => {
                return Ok(Answered {
                    response,
                    connection,
                    known,
                });
            }
            Err(failed) => failed,
        };
        let unsent = failed.take_message();
        let error = failed.into_error();
        let over = known.ended.is_cancelled();
        // A connection of ours that was idle may die at any time; a new one says how things are.
        request = match (unsent.or(spare), connection.reused || over) {
            (Some(request), true) => request,
            (_, _) => return Err(Failure::Broken(error)),
        };
        reached = if over {
            reach(&client.edge, client.lane, rule, name)
                .await
                .map_err(Failure::Over)?
        } else {
            let connection = Borrowed::open(&client.edge, &key, &known)
                .await
                .map_err(Failure::Gone)?;
            Reached {
                known,
                key,
                connection,
            }
        };
    }
}

/// The same request again, if sending it twice does what sending it once does.
fn spare(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !request.method().is_idempotent() || !request.body().is_empty() {
        return None;
    }
    let mut spare = Request::new(RequestBody::empty(request.body()));
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// Waits as long as the request is still being sent, and then for a bounded time.
async fn await_answer<T>(
    sent: impl Future<Output = Result<T, Failure>>,
    received: &AtomicU64,
    limits: &Limits,
) -> Result<T, Failure> {
    let mut sent = std::pin::pin!(sent);
    let mut before = u64::MAX;
    loop {
        match timeout(limits.response(), sent.as_mut()).await {
            Ok(outcome) => return outcome,
            Err(_) => {
                let now = received.load(Ordering::Relaxed);
                if now == before || now == 0 {
                    return Err(Failure::Silent(limits.response()));
                }
                before = now;
            }
        }
    }
}

/// The answer as the client gets it.
fn towards_client(
    response: Response<Incoming>,
    connection: Borrowed,
    client: &Arc<Client>,
    upgrade: Option<Upgrade>,
    known: &Arc<Known>,
    limits: &Limits,
) -> Result<Response<AnswerBody>, Page> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = upgrade else {
            return Err(Page::new(
                StatusCode::BAD_GATEWAY,
                "The instance changes the protocol without having been asked to.",
                "",
            ));
        };
        return upgrade::switch(response, upgrade, client, known, limits);
    }
    let (mut parts, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_11;
    Ok(Response::from_parts(
        parts,
        AnswerBody::guest(body, limits.idle(), connection),
    ))
}
