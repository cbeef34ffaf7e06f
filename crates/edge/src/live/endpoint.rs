//! Which sockets a document asks for.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::{Config, Listening, Protocol, Rejected};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Ingress,
    Dns,
    Forward,
}

/// A socket that listens. What exactly it serves is looked up in the live document each time, so
/// that it stays open when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Endpoint {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
    pub(crate) purpose: Purpose,
}

impl Endpoint {
    pub(crate) fn listening(self) -> Listening {
        Listening {
            protocol: self.protocol,
            address: self.address,
            purpose: match self.purpose {
                Purpose::Ingress => "ingress",
                Purpose::Dns => "dns",
                Purpose::Forward => "forward",
            }
            .to_owned(),
        }
    }
}

/// Every socket of a document, with the name of who wants it.
pub(crate) type Wanted = BTreeMap<Endpoint, String>;

/// Every socket of a document, or the two parts of it that want the same.
pub(crate) fn wanted(config: &Config) -> Result<Wanted, Rejected> {
    let mut wanted = Wanted::new();
    let ingress = &config.ingress;
    for rule in &ingress.rules {
        let redirect = rule.redirect_http.then_some(ingress.http_port);
        for port in std::iter::once(rule.port).chain(redirect) {
            for address in &ingress.bind {
                let endpoint = Endpoint {
                    protocol: Protocol::Tcp,
                    address: SocketAddr::new(*address, port),
                    purpose: Purpose::Ingress,
                };
                wanted.entry(endpoint).or_insert_with(|| rule.id.clone());
            }
        }
    }
    for listener in &config.dns.listeners {
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let endpoint = Endpoint {
                protocol,
                address: listener.address,
                purpose: Purpose::Dns,
            };
            claim(&mut wanted, endpoint, "dns")?;
        }
    }
    for forward in &config.forwards {
        let endpoint = Endpoint {
            protocol: forward.protocol,
            address: forward.listen,
            purpose: Purpose::Forward,
        };
        claim(&mut wanted, endpoint, &forward.id)?;
    }
    Ok(wanted)
}

fn claim(wanted: &mut Wanted, endpoint: Endpoint, by: &str) -> Result<(), Rejected> {
    let same = |other: &&Endpoint| {
        other.protocol == endpoint.protocol && other.address == endpoint.address
    };
    if wanted.keys().any(|other| same(&other)) {
        return Err(Rejected::PortInUse {
            protocol: endpoint.protocol,
            address: endpoint.address,
            wanted_by: by.to_owned(),
        });
    }
    wanted.insert(endpoint, by.to_owned());
    Ok(())
}
