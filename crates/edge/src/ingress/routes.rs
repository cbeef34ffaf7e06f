//! Which rule a request is for; no IO.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{HostPattern, Hostname, Ingress, Rule};

/// Whether a client speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// What is to be done with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// Send it to the rule's target; the text is what the host name captured.
    Proxy(Arc<Rule>, String),
    /// Send the client to the same address with TLS, on this port.
    Redirect(u16),
    /// The rule wants TLS (or the absence of it), the client does not.
    WrongScheme(Scheme),
    /// No rule is meant.
    Unknown,
}

/// The rules, by port.
#[derive(Debug, Default)]
pub(crate) struct Routes(HashMap<u16, Port>);

#[derive(Debug, Default)]
struct Port {
    literals: HashMap<Hostname, Answer>,
    /// The most specific first.
    patterns: Vec<Answer>,
}

#[derive(Debug, Clone)]
struct Answer {
    rule: Arc<Rule>,
    /// On the port for requests without TLS, rather than on the rule's own.
    redirects: bool,
}

impl Routes {
    pub(crate) fn new(ingress: &Ingress) -> Self {
        let mut ports: HashMap<u16, Port> = HashMap::new();
        for rule in &ingress.rules {
            let rule = Arc::new(rule.clone());
            let own = (rule.port, false);
            let redirect = (ingress.http_port, true);
            let also = rule.redirect_http && ingress.http_port != rule.port;
            for (port, redirects) in std::iter::once(own).chain(also.then_some(redirect)) {
                let port = ports.entry(port).or_default();
                let rule = Arc::clone(&rule);
                let answer = Answer { rule, redirects };
                match &answer.rule.hostname {
                    HostPattern::Literal(name) => {
                        port.literals.insert(name.clone(), answer);
                    }
                    HostPattern::Capture { .. } => port.patterns.push(answer),
                }
            }
        }
        for port in ports.values_mut() {
            let weight = |answer: &Answer| std::cmp::Reverse(answer.rule.hostname.weight());
            port.patterns.sort_by_key(weight);
        }
        Self(ports)
    }

    /// Whether TLS is spoken on a port at all.
    pub(crate) fn speaks_tls(&self, port: u16) -> bool {
        self.0.get(&port).is_some_and(|port| {
            let mut answers = port.literals.values().chain(&port.patterns);
            answers.any(|answer| answer.rule.tls && !answer.redirects)
        })
    }

    pub(crate) fn find(&self, port: u16, host: &Hostname, scheme: Scheme) -> Route {
        let Some(at) = self.0.get(&port) else {
            return Route::Unknown;
        };
        let literal = at.literals.get(host).map(|answer| (answer, ""));
        let pattern = || {
            at.patterns.iter().find_map(|answer| {
                let captured = answer.rule.hostname.matches(host)?;
                Some((answer, captured))
            })
        };
        let Some((answer, captured)) = literal.or_else(pattern) else {
            return Route::Unknown;
        };
        match (answer.rule.tls, scheme) {
            (true, Scheme::Http) if answer.rule.redirect_http => Route::Redirect(answer.rule.port),
            (true, Scheme::Http) => Route::WrongScheme(Scheme::Https),
            (false, Scheme::Https) => Route::WrongScheme(Scheme::Http),
            (true, Scheme::Https) | (false, Scheme::Http) => {
                Route::Proxy(Arc::clone(&answer.rule), captured.to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Target;

    fn rule(hostname: &str, port: u16, tls: bool) -> Rule {
        Rule {
            id: hostname.to_owned(),
            hostname: hostname.parse().unwrap(),
            port,
            target: Target {
                instance: "web".parse().unwrap(),
                port: 80,
            },
            tls,
            redirect_http: tls,
            header_auth: None,
            wake: false,
        }
    }

    fn find(rules: Vec<Rule>, port: u16, host: &str, scheme: Scheme) -> String {
        let ingress = Ingress {
            rules,
            ..Ingress::default()
        };
        match Routes::new(&ingress).find(port, &host.parse().unwrap(), scheme) {
            Route::Proxy(rule, captured) => format!("{} {captured}", rule.id),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn literals_beat_patterns_and_longer_patterns_beat_shorter_ones() {
        let rules = || {
            vec![
                rule("{x}.example.com", 80, false),
                rule("app-{x}.example.com", 80, false),
                rule("app-1.example.com", 80, false),
                rule("app-1.example.com", 81, false),
            ]
        };
        let http = |port, host| find(rules(), port, host, Scheme::Http);
        assert_eq!(http(80, "app-1.example.com"), "app-1.example.com ");
        assert_eq!(http(80, "app-2.example.com"), "app-{x}.example.com 2");
        assert_eq!(http(80, "other.example.com"), "{x}.example.com other");
        assert_eq!(http(80, "a.b.example.com"), "Unknown");
        assert_eq!(http(81, "app-2.example.com"), "Unknown");
        assert_eq!(http(82, "app-1.example.com"), "Unknown");
    }

    #[test]
    fn the_scheme_must_fit_the_rule() {
        let rules = || vec![rule("a.com", 443, true), rule("b.com", 80, false)];
        assert_eq!(find(rules(), 443, "a.com", Scheme::Https), "a.com ");
        assert_eq!(find(rules(), 443, "a.com", Scheme::Http), "Redirect(443)");
        assert_eq!(find(rules(), 80, "a.com", Scheme::Http), "Redirect(443)");
        assert_eq!(
            find(rules(), 80, "b.com", Scheme::Https),
            "WrongScheme(Http)"
        );
        let routes = Routes::new(&Ingress {
            rules: rules(),
            ..Ingress::default()
        });
        assert!(routes.speaks_tls(443) && !routes.speaks_tls(80));
    }
}
