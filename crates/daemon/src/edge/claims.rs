//! Ports of the host that the edge listens on for ingress and names, beside those that lead to
//! instances: pure. One port cannot be both, even where the kernel would let it be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use model::InstanceId;
use model::network::{Protocol, Publish};

use super::document::{GUEST_DNS_PORT, HOST_DNS_PORT, Settings};
use crate::store::{IngressRecord, IngressRuleRecord};

/// A port that a rule wants and that leads to an instance.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash<'a> {
    pub(super) port: u16,
    pub(super) instance: &'a InstanceId,
}

/// The first port of `ingress` that is published.
pub(super) fn clash<'a>(
    settings: &Settings,
    ingress: &IngressRecord,
    published: &'a BTreeMap<InstanceId, Vec<Publish>>,
) -> Option<Clash<'a>> {
    let ports = ingress.rules.iter().flat_map(|rule| ports(settings, rule));
    let mut clashes = ports.filter_map(|port| {
        let is_it = |one: &&Publish| wants(settings, port, one);
        let (instance, _) = published
            .iter()
            .find(|(_, list)| list.iter().any(|one| is_it(&one)))?;
        Some(Clash { port, instance })
    });
    clashes.next()
}

/// What of the edge's own has the port of the host that `wanted` names.
pub(super) fn claimant(
    settings: &Settings,
    ingresses: &[IngressRecord],
    wanted: &Publish,
) -> Option<String> {
    let has =
        |rule: &IngressRuleRecord| ports(settings, rule).any(|port| wants(settings, port, wanted));
    let ingress = ingresses.iter().find(|one| one.rules.iter().any(has));
    if let Some(ingress) = ingress {
        return Some(format!("ingress {}", ingress.name));
    }
    let dns = [GUEST_DNS_PORT, HOST_DNS_PORT].contains(&wanted.host_port)
        && settings
            .host_address
            .is_some_and(|address| meet(address.into(), wanted.host_ip));
    dns.then(|| "the server for instances' names".to_owned())
}

/// Where a rule is answered.
fn ports(settings: &Settings, rule: &IngressRuleRecord) -> impl Iterator<Item = u16> + use<> {
    let redirect = rule.redirect_http.then_some(settings.http_port);
    std::iter::once(rule.port).chain(redirect)
}

fn wants(settings: &Settings, port: u16, published: &Publish) -> bool {
    published.protocol == Protocol::Tcp
        && published.host_port == port
        && settings
            .bind
            .iter()
            .any(|address| meet(*address, published.host_ip))
}

/// Whether a socket on `bind` and a port published on `host_ip`, none = every address, are in each
/// other's way.
fn meet(bind: IpAddr, host_ip: Option<Ipv4Addr>) -> bool {
    match bind {
        IpAddr::V4(bind) => bind.is_unspecified() || host_ip.is_none_or(|ip| ip == bind),
        // Ports are published on IPv4 alone, and our IPv6 sockets take nothing else.
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy;
    use model::UnixMillis;

    fn settings(bind: &[&str]) -> Settings {
        Settings {
            bind: bind.iter().map(|ip| ip.parse().unwrap()).collect(),
            http_port: 80,
            certificates: std::path::PathBuf::new(),
            zone: edge::DEFAULT_ZONE.to_owned(),
            upstreams: vec![],
            host_address: Some(Ipv4Addr::new(10, 208, 0, 1)),
            daemon_socket: "/run/coppiced.sock".into(),
        }
    }

    fn ingress(port: u16, redirect_http: bool) -> IngressRecord {
        IngressRecord {
            id: "i".to_owned(),
            name: "web".to_owned(),
            rules: vec![IngressRuleRecord {
                hostname: "a.test".to_owned(),
                port,
                instance: "one".to_owned(),
                target_port: 8080,
                tls: redirect_http,
                redirect_http,
                header_auth: None,
                wake: false,
            }],
            tags: Default::default(),
            created_at: UnixMillis(0),
        }
    }

    fn publish(protocol: Protocol, host_ip: Option<&str>, host_port: u16) -> Publish {
        Publish {
            protocol,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            guest_port: 80,
        }
    }

    #[test]
    fn all_addresses_are_in_the_way_of_each_one_and_the_reverse() {
        let id = entropy::instance_id();
        for (bind, host_ip, clashes) in [
            ("0.0.0.0", Some("192.0.2.1"), true),
            ("192.0.2.1", None, true),
            ("192.0.2.1", Some("192.0.2.1"), true),
            ("192.0.2.1", Some("192.0.2.2"), false),
            ("::", None, false),
        ] {
            let settings = settings(&[bind]);
            let one = publish(Protocol::Tcp, host_ip, 8080);
            let published = BTreeMap::from([(id.clone(), vec![one])]);
            let found = clash(&settings, &ingress(8080, false), &published);
            let wanted = clashes.then_some(Clash {
                port: 8080,
                instance: &id,
            });
            assert_eq!(found, wanted, "{bind} {host_ip:?}");
            let found = claimant(&settings, &[ingress(8080, false)], &one);
            assert_eq!(found.is_some(), clashes, "{bind} {host_ip:?}");
        }
    }

    #[test]
    fn other_ports_and_protocols_are_not_in_the_way() {
        let settings = settings(&["0.0.0.0"]);
        let all = [ingress(8443, true)];
        let claimed = |protocol, port| claimant(&settings, &all, &publish(protocol, None, port));
        assert_eq!(claimed(Protocol::Tcp, 8443).as_deref(), Some("ingress web"));
        // Where those are met who do not speak TLS.
        assert_eq!(claimed(Protocol::Tcp, 80).as_deref(), Some("ingress web"));
        assert_eq!(claimed(Protocol::Udp, 8443), None);
        assert_eq!(claimed(Protocol::Tcp, 8080), None);
        let names = claimed(Protocol::Udp, GUEST_DNS_PORT).unwrap();
        assert!(names.contains("names"), "{names}");
        let elsewhere = publish(Protocol::Udp, Some("192.0.2.1"), GUEST_DNS_PORT);
        assert_eq!(claimant(&settings, &all, &elsewhere), None);
    }
}
