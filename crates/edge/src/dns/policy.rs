//! What a question is answered with; no IO.

use std::net::IpAddr;

use hickory_proto::rr::{DNSClass, Name, RecordType};
use ipnet::IpNet;
use model::InstanceId;

use super::ranges::is_private;
use crate::config::{Audience, Hostname};
use crate::directory::{Egress, Entry, Snapshot};

/// Who asks what.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) name: &'a Name,
    pub(super) kind: RecordType,
    pub(super) class: DNSClass,
    pub(super) audience: Audience,
    pub(super) source: IpAddr,
}

/// What a question is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// An instance's address.
    Address(IpAddr),
    /// An instance's name, for an address.
    Name(String),
    /// The name exists and has nothing of this kind.
    NoData,
    /// No such name.
    NoName,
    /// Not for this client.
    Refused,
    /// Ask the resolvers of the host.
    Forward(Filter),
}

/// What must not be in an answer of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    /// Anything may: a program of the host asks.
    Nothing,
    /// Private addresses, apart from these networks.
    Private(Vec<IpNet>),
    /// As above, and each address must be allowed first.
    Allowed {
        reachable: Vec<IpNet>,
        instance: InstanceId,
        generation: u64,
    },
}

/// Decides from the question, who asks and where instances are.
pub(super) fn decide(asked: &Asked<'_>, zone: &str, instances: &Snapshot) -> Decision {
    let client = match asked.audience {
        Audience::Host | Audience::HostRecursive => None,
        // Somebody who is no instance of ours has no business here.
        Audience::Guests => match instances.at(asked.source) {
            Some(entry) => Some(entry),
            None => return Decision::Refused,
        },
    };
    if asked.class != DNSClass::IN {
        return Decision::Refused;
    }
    let text = asked.name.to_ascii().to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text);
    if let Some(label) = in_zone(text, zone) {
        let entry = label
            .and_then(|label| instances.find(label))
            .map(|known| &known.entry);
        // A guest must not even learn that there is another.
        return match entry.filter(|entry| sees(client, entry)) {
            Some(entry) => own(entry, asked.kind),
            None if text == zone => Decision::NoData,
            None => Decision::NoName,
        };
    }
    if let Ok(network) = asked.name.parse_arpa_name()
        && let Some(decision) = reverse(network, asked.kind, client, zone, instances)
    {
        return decision;
    }
    outside(text, asked, client)
}

/// The label below the zone, or the bare name: `Some(None)` is a name of the zone that cannot be
/// an instance's.
fn in_zone<'a>(name: &'a str, zone: &str) -> Option<Option<&'a str>> {
    if name == zone {
        return Some(None);
    }
    match name
        .strip_suffix(zone)
        .and_then(|rest| rest.strip_suffix('.'))
    {
        Some(label) => Some((!label.contains('.')).then_some(label)),
        // Names without a dot are never asked of the world.
        None => (!name.contains('.')).then_some(Some(name)),
    }
}

fn sees(client: Option<&Entry>, entry: &Entry) -> bool {
    client.is_none_or(|client| {
        client.id == entry.id || (client.group.is_some() && client.group == entry.group)
    })
}

fn own(entry: &Entry, kind: RecordType) -> Decision {
    match (entry.address, kind) {
        (Some(IpAddr::V4(address)), RecordType::A) => Decision::Address(address.into()),
        (Some(IpAddr::V6(address)), RecordType::AAAA) => Decision::Address(address.into()),
        (_, _) => Decision::NoData,
    }
}

fn reverse(
    network: IpNet,
    kind: RecordType,
    client: Option<&Entry>,
    zone: &str,
    instances: &Snapshot,
) -> Option<Decision> {
    let address = network.addr();
    let whole = network.prefix_len() == network.max_prefix_len();
    let entry = instances
        .at(address)
        .filter(|entry| whole && sees(client, entry));
    if let Some(entry) = entry {
        let name = entry
            .name
            .as_ref()
            .map_or(entry.id.as_str(), |name| name.as_str());
        return Some(match kind {
            RecordType::PTR => Decision::Name(format!("{name}.{zone}.")),
            _ => Decision::NoData,
        });
    }
    // The host's resolvers may know names of its networks, which are none of a guest's business.
    (client.is_some() && is_private(address)).then_some(Decision::NoName)
}

fn outside(name: &str, asked: &Asked<'_>, client: Option<&Entry>) -> Decision {
    // Whole zones and everything of a name are asked for by those who want to amplify.
    if matches!(
        asked.kind,
        RecordType::ANY | RecordType::AXFR | RecordType::IXFR
    ) {
        return Decision::Refused;
    }
    let Some(client) = client else {
        return match asked.audience {
            Audience::HostRecursive => Decision::Forward(Filter::Nothing),
            Audience::Host | Audience::Guests => Decision::Refused,
        };
    };
    let reachable = client.reachable.clone();
    match &client.egress {
        Egress::None => Decision::Refused,
        Egress::Open => Decision::Forward(Filter::Private(reachable)),
        Egress::Domains(domains) => {
            let allowed = name
                .parse::<Hostname>()
                .is_ok_and(|name| domains.iter().any(|domain| domain.matches(&name)));
            match asked.kind {
                _ if !allowed => Decision::Refused,
                // These have addresses as hints, which clients use without having looked them up.
                RecordType::HTTPS | RecordType::SVCB => Decision::NoData,
                _ => Decision::Forward(Filter::Allowed {
                    reachable,
                    instance: client.id.clone(),
                    generation: client.generation,
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr as _;

    use model::State;

    use super::*;
    use crate::directory::{Directory, DirectoryUpdate};

    const ZONE: &str = "coppice.internal";

    fn entry(name: &str, address: &str, group: Option<&str>, egress: Egress) -> Entry {
        let mut entropy = [0; 16];
        entropy[..name.len()].copy_from_slice(name.as_bytes());
        Entry {
            id: InstanceId::from_entropy(entropy),
            name: Some(name.parse().unwrap()),
            address: Some(address.parse().unwrap()),
            generation: 7,
            state: State::Running,
            group: group.map(str::to_owned),
            egress,
            reachable: vec!["10.9.0.0/16".parse().unwrap()],
        }
    }

    fn instances() -> std::sync::Arc<Snapshot> {
        let domains =
            |all: &[&str]| Egress::Domains(all.iter().map(|one| one.parse().unwrap()).collect());
        let directory = Directory::new();
        let entries = vec![
            entry("web", "10.0.0.1", Some("shop"), Egress::Open),
            entry("db", "10.0.0.2", Some("shop"), Egress::None),
            entry(
                "alone",
                "10.0.0.3",
                None,
                domains(&["example.com", "*.pypi.org"]),
            ),
        ];
        directory
            .update(DirectoryUpdate::Replace {
                sequence: 1,
                entries,
            })
            .unwrap();
        directory.snapshot()
    }

    fn ask(audience: Audience, source: &str, name: &str, kind: RecordType) -> Decision {
        let asked = Asked {
            name: &Name::from_str(name).unwrap(),
            kind,
            class: DNSClass::IN,
            audience,
            source: source.parse().unwrap(),
        };
        decide(&asked, ZONE, &instances())
    }

    fn address(text: &str) -> Decision {
        Decision::Address(text.parse().unwrap())
    }

    #[test]
    fn the_host_sees_all_instances_and_nothing_else() {
        let host = |name, kind| ask(Audience::Host, "127.0.0.1", name, kind);
        assert_eq!(
            host("web.coppice.internal.", RecordType::A),
            address("10.0.0.1")
        );
        assert_eq!(
            host("WEB.Coppice.Internal.", RecordType::A),
            address("10.0.0.1")
        );
        assert_eq!(host("web.", RecordType::A), address("10.0.0.1"));
        assert_eq!(host("web.", RecordType::AAAA), Decision::NoData);
        assert_eq!(host("coppice.internal.", RecordType::A), Decision::NoData);
        assert_eq!(
            host("none.coppice.internal.", RecordType::A),
            Decision::NoName
        );
        assert_eq!(
            host("a.web.coppice.internal.", RecordType::A),
            Decision::NoName
        );
        assert_eq!(host("example.com.", RecordType::A), Decision::Refused);
        let ptr = host("2.0.0.10.in-addr.arpa.", RecordType::PTR);
        assert_eq!(ptr, Decision::Name("db.coppice.internal.".to_owned()));
        let recursive = ask(
            Audience::HostRecursive,
            "127.0.0.1",
            "example.com.",
            RecordType::A,
        );
        assert_eq!(recursive, Decision::Forward(Filter::Nothing));
    }

    #[test]
    fn guests_see_their_group_and_themselves() {
        let guest = |source, name| ask(Audience::Guests, source, name, RecordType::A);
        assert_eq!(guest("10.0.0.1", "db."), address("10.0.0.2"));
        assert_eq!(guest("10.0.0.1", "alone."), Decision::NoName);
        assert_eq!(guest("10.0.0.3", "alone."), address("10.0.0.3"));
        assert_eq!(guest("10.0.0.3", "web.coppice.internal."), Decision::NoName);
        assert_eq!(
            guest("10.0.0.9", "web."),
            Decision::Refused,
            "not one of ours"
        );
        let ptr = ask(
            Audience::Guests,
            "10.0.0.3",
            "1.0.0.10.in-addr.arpa.",
            RecordType::PTR,
        );
        assert_eq!(ptr, Decision::NoName);
    }

    #[test]
    fn egress_decides_on_the_rest_of_the_world() {
        let guest = |source, name, kind| ask(Audience::Guests, source, name, kind);
        let reachable = vec!["10.9.0.0/16".parse().unwrap()];
        let open = guest("10.0.0.1", "example.com.", RecordType::A);
        assert_eq!(open, Decision::Forward(Filter::Private(reachable.clone())));
        assert_eq!(
            guest("10.0.0.2", "example.com.", RecordType::A),
            Decision::Refused
        );
        let allowed = guest("10.0.0.3", "files.pypi.org.", RecordType::A);
        assert!(matches!(
            allowed,
            Decision::Forward(Filter::Allowed { generation: 7, .. })
        ));
        for refused in [
            "pypi.org.",
            "a.example.com.",
            "example.org.",
            "badpypi.org.",
        ] {
            assert_eq!(
                guest("10.0.0.3", refused, RecordType::A),
                Decision::Refused,
                "{refused}"
            );
        }
        assert_eq!(
            guest("10.0.0.3", "example.com.", RecordType::HTTPS),
            Decision::NoData
        );
        assert_eq!(
            guest("10.0.0.1", "example.com.", RecordType::ANY),
            Decision::Refused
        );
    }
}
