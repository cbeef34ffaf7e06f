//! What the edge is to serve, put together from records: pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use edge::{
    Audience, Certificate, CertificateSource, Config, Dns, DnsListener, Forward, HeaderAuth,
    Ingress, InstanceRef, Protocol, Rule, Target, WakeVia,
};
use model::InstanceId;
use model::network::Publish;

use super::EdgeError;
use crate::store::{IngressRecord, IngressRuleRecord};

/// Port at which guests' queries arrive, on the pool's own address.
pub const GUEST_DNS_PORT: u16 = 4953;
/// Port at which programs of the host may ask for instances, on the same address.
pub const HOST_DNS_PORT: u16 = 4954;

/// What is configured rather than recorded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Addresses that ports of ingress are opened on.
    pub bind: Vec<IpAddr>,
    /// Port of plain HTTP, where `redirect_http` listens.
    pub http_port: u16,
    /// Certificates for rules with TLS: pairs of files.
    pub certificates: PathBuf,
    /// Zone of instances' names.
    pub zone: String,
    /// Resolvers for everything else; empty = the host's.
    pub upstreams: Vec<SocketAddr>,
    /// The pool's own address, on a host with networks.
    pub host_address: Option<Ipv4Addr>,
    /// The daemon's socket, for waking.
    pub daemon_socket: PathBuf,
}

/// The whole document.
pub(super) fn document(
    settings: &Settings,
    revision: u64,
    ingresses: &[IngressRecord],
    published: &BTreeMap<InstanceId, Vec<Publish>>,
    certificates: Vec<Certificate>,
) -> Result<Config, EdgeError> {
    let mut rules = Vec::new();
    for ingress in ingresses {
        for (number, record) in ingress.rules.iter().enumerate() {
            rules.push(rule(format!("{}/{number}", ingress.name), record)?);
        }
    }
    let dns_listener = |port, audience| {
        settings.host_address.map(|address| DnsListener {
            address: SocketAddr::new(address.into(), port),
            audience,
        })
    };
    let listeners = [
        dns_listener(GUEST_DNS_PORT, Audience::Guests),
        dns_listener(HOST_DNS_PORT, Audience::Host),
    ];
    Ok(Config {
        ingress: Ingress {
            bind: settings.bind.clone(),
            http_port: settings.http_port,
            rules,
            certificates,
            ..Ingress::default()
        },
        dns: Dns {
            zone: settings.zone.clone(),
            listeners: listeners.into_iter().flatten().collect(),
            upstreams: settings.upstreams.clone(),
            ..Dns::default()
        },
        forwards: published.iter().flat_map(forwards).collect(),
        wake: Some(WakeVia {
            socket: settings.daemon_socket.clone(),
            path: "/instances/{id}/restore".to_owned(),
        }),
        ..Config::empty(revision)
    })
}

/// One rule; `id` is what errors and logs call it.
pub(super) fn rule(id: String, record: &IngressRuleRecord) -> Result<Rule, EdgeError> {
    let wrong = |why: String| EdgeError::BadRule(format!("{id}: {why}"));
    let header_auth = record
        .header_auth
        .as_ref()
        .map(|(header, value)| HeaderAuth::new(header, value.as_str()));
    Ok(Rule {
        hostname: record
            .hostname
            .parse()
            .map_err(|error: edge::HostnameError| wrong(error.to_string()))?,
        port: record.port,
        target: Target {
            instance: record
                .instance
                .parse()
                .map_err(|error: edge::InstanceRefError| wrong(error.to_string()))?,
            port: record.target_port,
        },
        tls: record.tls,
        redirect_http: record.redirect_http,
        header_auth: header_auth
            .transpose()
            .map_err(|error| wrong(error.to_string()))?,
        wake: record.wake,
        id,
    })
}

/// The kernel leads packets from outside to a published port, but not what the host sends to
/// itself by its loopback address: that the edge does.
fn forwards((id, ports): (&InstanceId, &Vec<Publish>)) -> Vec<Forward> {
    let loopback = |port: &Publish| match port.host_ip {
        None => Some(Ipv4Addr::LOCALHOST),
        Some(ip) => ip.is_loopback().then_some(ip),
    };
    let ports = ports.iter().filter_map(|port| {
        let listen = SocketAddr::new(loopback(port)?.into(), port.host_port);
        Some(Forward {
            id: format!("{id}/{listen}/{}", port.protocol),
            protocol: match port.protocol {
                model::network::Protocol::Tcp => Protocol::Tcp,
                model::network::Protocol::Udp => Protocol::Udp,
            },
            listen,
            target: Target {
                instance: InstanceRef::Literal(id.to_string()),
                port: port.guest_port,
            },
        })
    });
    ports.collect()
}

/// Every `NAME.crt` in the directory that has a `NAME.key` beside it.
pub(super) fn certificates(directory: &std::path::Path) -> Vec<Certificate> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut found: Vec<Certificate> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .filter_map(|chain| {
            let key = chain.with_extension("key");
            let name = chain.file_stem()?.to_str()?.to_owned();
            key.exists().then_some(Certificate {
                name,
                source: CertificateSource::Files { chain, key },
            })
        })
        .collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;
    use model::UnixMillis;

    fn settings() -> Settings {
        Settings {
            bind: vec![Ipv4Addr::UNSPECIFIED.into()],
            http_port: 80,
            certificates: PathBuf::new(),
            zone: edge::DEFAULT_ZONE.to_owned(),
            upstreams: vec![],
            host_address: Some(Ipv4Addr::new(10, 208, 0, 1)),
            daemon_socket: "/run/coppiced.sock".into(),
        }
    }

    fn record(hostname: &str, instance: &str) -> IngressRuleRecord {
        IngressRuleRecord {
            hostname: hostname.to_owned(),
            port: 80,
            instance: instance.to_owned(),
            target_port: 8080,
            tls: false,
            redirect_http: false,
            header_auth: None,
            wake: true,
        }
    }

    #[test]
    fn rules_are_called_by_their_ingress_and_number() {
        let ingress = IngressRecord {
            id: "i".to_owned(),
            name: "web".to_owned(),
            rules: vec![record("a.test", "one"), record("{x}.test", "{x}")],
            tags: Default::default(),
            created_at: UnixMillis(0),
        };
        let made = document(&settings(), 7, &[ingress], &BTreeMap::new(), vec![]).unwrap();
        let ids: Vec<_> = made
            .ingress
            .rules
            .iter()
            .map(|rule| rule.id.as_str())
            .collect();
        assert_eq!(ids, ["web/0", "web/1"]);
        assert_eq!(made.revision, 7);
        assert_eq!(made.dns.listeners.len(), 2);
    }

    #[test]
    fn what_cannot_be_a_rule_is_named() {
        let error = rule("web/0".to_owned(), &record("a..b", "one")).unwrap_err();
        assert!(error.to_string().contains("web/0"), "{error}");
        assert!(rule("web/0".to_owned(), &record("a.b", "One two")).is_err());
    }

    #[test]
    fn loopback_is_forwarded_unless_another_address_was_asked_for() {
        let id = entropy::instance_id();
        let port = |host_ip: Option<[u8; 4]>, host_port| Publish {
            protocol: model::network::Protocol::Tcp,
            host_ip: host_ip.map(Ipv4Addr::from),
            host_port,
            guest_port: 80,
        };
        let ports = vec![
            port(None, 1),
            port(Some([127, 0, 0, 1]), 2),
            port(Some([192, 0, 2, 1]), 3),
        ];
        let published = BTreeMap::from([(id, ports)]);
        let made = document(&settings(), 1, &[], &published, vec![]).unwrap();
        let listen: Vec<_> = made
            .forwards
            .iter()
            .map(|one| one.listen.to_string())
            .collect();
        assert_eq!(listen, ["127.0.0.1:1", "127.0.0.1:2"]);
    }
}
