//! Who may do what: bearer tokens and their scopes.
//!
//! A request over the unix socket needs no token: the socket's file mode decides who
//! can reach it.

use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::error::ApiError;
use crate::tokens::Claims;

/// Marks requests that came over the unix socket.
#[derive(Clone, Copy)]
pub(crate) struct Trusted;

/// Paths that anybody may read.
const OPEN: [&str; 4] = ["/health", "/spec.json", "/spec.yaml", "/swagger"];

/// Lets a request pass if its token holds and has the scope.
pub(crate) async fn require(State(app): State<App>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let open = OPEN.contains(&path) || path.starts_with("/swagger/");
    if open || request.extensions().get::<Trusted>().is_some() {
        return next.run(request).await;
    }
    match check(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

fn check(app: &App, request: &Request) -> Result<(), ApiError> {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)
        .ok_or_else(|| {
            ApiError::unauthorized(
                "send Authorization: Bearer TOKEN; make a token with: coppice token",
            )
        })?;
    let token = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| ApiError::unauthorized("the Authorization header is not Bearer TOKEN"))?;
    let claims = app
        .tokens
        .check(token)
        .map_err(|error| ApiError::unauthorized(error.to_string()))?;
    match scope(request.method(), request.uri().path()) {
        Some(needed) if !allows(&claims, needed) => Err(ApiError::missing_scope(needed)),
        _ => Ok(()),
    }
}

/// The scope that a request needs. Anything that is not known here needs everything.
fn scope(method: &Method, path: &str) -> Option<&'static str> {
    let mut parts = path.trim_matches('/').split('/');
    let (group, _id, verb) = (parts.next(), parts.next(), parts.next());
    let read = method == Method::GET || method == Method::HEAD;
    match (group, verb) {
        // A websocket begins as a GET, but changes the guest.
        (Some("instances"), Some("exec" | "cp")) => Some("instance:write"),
        (Some("instances"), _) if method == Method::DELETE => Some("instance:delete"),
        (Some("instances"), _) if read => Some("instance:read"),
        (Some("instances"), _) => Some("instance:write"),
        (Some("images"), _) if method == Method::DELETE => Some("image:delete"),
        (Some("images"), _) if read => Some("image:read"),
        (Some("images"), _) => Some("image:write"),
        (Some("ingresses"), _) if method == Method::DELETE => Some("ingress:delete"),
        (Some("ingresses"), _) if read => Some("ingress:read"),
        (Some("ingresses"), _) => Some("ingress:write"),
        (Some("capabilities" | "metrics"), _) => Some("resource:read"),
        _ => Some("*"),
    }
}

/// A token without a list of permissions may do everything. Spaces around a scope are
/// part of the public contract.
fn allows(claims: &Claims, needed: &str) -> bool {
    claims.permissions.as_ref().is_none_or(|scopes| {
        scopes
            .iter()
            .map(|scope| scope.trim())
            .any(|scope| scope == "*" || scope == needed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_needs_its_scope() {
        for (method, path, needed) in [
            (Method::GET, "/instances", "instance:read"),
            (Method::GET, "/instances/x/wait", "instance:read"),
            (Method::GET, "/instances/x/exec", "instance:write"),
            (Method::GET, "/instances/x/cp", "instance:write"),
            (Method::POST, "/instances/x/fork", "instance:write"),
            (Method::DELETE, "/instances/x", "instance:delete"),
            (Method::DELETE, "/images/x", "image:delete"),
            (Method::POST, "/images/import", "image:write"),
            (Method::GET, "/capabilities", "resource:read"),
            (Method::GET, "/anything/else", "*"),
        ] {
            assert_eq!(scope(&method, path), Some(needed), "{method} {path}");
        }
    }
    #[test]
    fn scopes_may_stand_between_spaces() {
        let claims: Claims = serde_json::from_value(serde_json::json!({
            "sub": "ann", "iat": 1, "exp": 2, "permissions": [" instance:read ", "image:*"],
        }))
        .unwrap();
        assert!(allows(&claims, "instance:read"));
        for other in ["instance:write", "image:read", "*"] {
            assert!(!allows(&claims, other), "{other}");
        }
    }
}
