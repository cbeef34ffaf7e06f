//! `ingress`: requests for host names that lead to instances.

pub(super) mod create;

pub(super) mod inspect;

pub(super) mod ls;

pub(super) mod rm;

use api::ingresses::IngressRule;

/// Where requests of a rule come in, as in a browser.
fn origin(rule: &IngressRule) -> String {
    let (scheme, usual) = if rule.tls {
        ("https", 443)
    } else {
        ("http", 80)
    };
    let hostname = &rule.matches.hostname;
    match rule.matches.port {
        port if port == usual => format!("{scheme}://{hostname}"),
        port => format!("{scheme}://{hostname}:{port}"),
    }
}

/// Where they go.
fn target(rule: &IngressRule) -> String {
    format!("{}:{}", rule.target.instance, rule.target.port)
}

/// What else a rule does. Of a header that it wants only the name, for the value is a secret.
fn options(rule: &IngressRule) -> String {
    let mut words = Vec::new();
    if rule.redirect_http {
        words.push("redirect-http".to_owned());
    }
    if rule.wake {
        words.push("wake".to_owned());
    }
    if let Some(auth) = &rule.request_header_auth {
        words.push(format!("needs {}", auth.header));
    }
    words.join(", ")
}
