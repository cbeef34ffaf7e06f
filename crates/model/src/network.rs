//! What a machine may do on the network, as it was asked for.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::Tags;

/// Whether and how an instance is connected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkSpec {
    /// It has a network device. Fixed when the instance is made: memory fits only a machine with the same devices.
    pub enabled: bool,
    /// What it may do. Its group is none here: that is a tag ([`NetworkSpec::policy_in`]).
    pub policy: Policy,
}

/// The tag whose value names the group of an instance: members reach each other.
pub const GROUP_TAG: &str = "network";

impl NetworkSpec {
    /// The policy of an instance with these tags.
    #[must_use]
    pub fn policy_in(&self, tags: &Tags) -> Policy {
        Policy {
            group: tags
                .get(GROUP_TAG)
                .filter(|group| !group.is_empty())
                .cloned(),
            ..self.policy.clone()
        }
    }

    /// What a fork takes over: everything but the host's ports, which only one can have.
    #[must_use]
    pub fn inherited(&self) -> Self {
        let mut heir = self.clone();
        heir.policy.publish.clear();
        heir
    }
}

/// Changes to a policy; what is none stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyPatch {
    /// Limit of what it sends, in bit/s; the inner none is unlimited.
    pub upload: Option<Option<u64>>,
    /// Limit of what it receives, in bit/s.
    pub download: Option<Option<u64>>,
    /// What it reaches outside.
    pub egress: Option<Egress>,
    /// Private blocks that it reaches.
    pub allow: Option<Vec<Ipv4Net>>,
    /// Ports of the host that lead to it.
    pub publish: Option<Vec<Publish>>,
}

impl PolicyPatch {
    /// The policy with the changes.
    #[must_use]
    pub fn applied_to(&self, policy: &Policy) -> Policy {
        let limits = policy.bandwidth;
        Policy {
            group: policy.group.clone(),
            egress: self.egress.clone().unwrap_or_else(|| policy.egress.clone()),
            allow: self.allow.clone().unwrap_or_else(|| policy.allow.clone()),
            bandwidth: Bandwidth {
                upload: self.upload.unwrap_or(limits.upload),
                download: self.download.unwrap_or(limits.download),
            },
            publish: self
                .publish
                .clone()
                .unwrap_or_else(|| policy.publish.clone()),
        }
    }
}

/// A machine's place on the network while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkLease {
    /// Number of its slot.
    pub slot: u32,
    /// Address under which it is reached.
    pub address: Ipv4Addr,
    /// MTU of its interface in bytes.
    pub mtu: u16,
}

/// Policy of one slot. The default reaches the internet, and neither other machines nor private networks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Machines with the same group reach each other.
    pub group: Option<String>,
    /// What it reaches outside.
    pub egress: Egress,
    /// Blocks that are reachable whatever else forbids them: private networks, the cloud's metadata address.
    /// Neither the host itself nor other machines are opened by it.
    pub allow: Vec<Ipv4Net>,
    /// Limits of its speed.
    pub bandwidth: Bandwidth,
    /// Ports of the host that lead to it.
    pub publish: Vec<Publish>,
}

/// Reach towards networks outside the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Egress {
    /// Everything but private networks.
    #[default]
    Open,
    /// Nothing.
    None,
    /// Only this, and private networks only where a block lies within one.
    AllowList {
        /// Blocks.
        cidrs: Vec<Ipv4Net>,
        /// Names: `example.com` means itself, `*.example.com` everything below it.
        domains: Vec<String>,
    },
}

/// Limits in bit/s; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// From the guest.
    pub upload: Option<u64>,
    /// To the guest.
    pub download: Option<u64>,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publish {
    /// Transport.
    pub protocol: Protocol,
    /// Address of the host; `None` is each of them, 127.0.0.1 included. On a loopback address the port is open to
    /// programs of the host alone.
    pub host_ip: Option<Ipv4Addr>,
    /// Port of the host.
    pub host_port: u16,
    /// Port of the guest.
    pub guest_port: u16,
}

/// What a published port occupies on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// Transport.
    pub protocol: Protocol,
    /// Address; `None` is all.
    pub host_ip: Option<Ipv4Addr>,
    /// Port.
    pub host_port: u16,
}

impl PortKey {
    /// Whether both cannot be published at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.host_port == other.host_port
            && (self.host_ip.is_none() || other.host_ip.is_none() || self.host_ip == other.host_ip)
    }
}

impl Publish {
    /// Whether only programs of the host reach it. The kernel leads no packet of a loopback address to a guest;
    /// somebody has to listen there.
    pub fn is_local(&self) -> bool {
        self.host_ip.is_some_and(|ip| ip.is_loopback())
    }

    /// What it occupies.
    pub fn key(&self) -> PortKey {
        PortKey {
            protocol: self.protocol,
            host_ip: self.host_ip,
            host_port: self.host_port,
        }
    }
}

/// A port of the host itself that guests may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Service {
    /// Transport.
    pub protocol: Protocol,
    /// Port.
    pub port: u16,
}

/// Why a policy cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPolicy {
    /// Group without a name, or with one that is too long.
    #[error("a group's name has 1 to 64 characters")]
    Group,
    /// More blocks than the kernel looks up quickly.
    #[error("an allow-list has at most {max} entries, not {0}", max = Policy::MAX_LIST)]
    TooMany(usize),
    /// Speed too low to carry packets.
    #[error("a bandwidth limit is at least {min} bit/s, not {0}", min = Policy::MIN_RATE)]
    Rate(u64),
    /// Port zero.
    #[error("ports are 1 to 65535")]
    Port,
    /// Two entries of the same policy want the same port.
    #[error("host port {0}/{1} is published twice")]
    Twice(u16, Protocol),
    /// An address that is none of a host.
    #[error("ports cannot be published on {0}")]
    HostIp(Ipv4Addr),
    /// Not a name.
    #[error("{0:?} is not a domain name such as example.com or *.example.com")]
    Domain(String),
}

impl Policy {
    /// Longest allow-list.
    pub const MAX_LIST: usize = 256;
    /// Lowest speed in bit/s: eight frames of 1500 bytes a second.
    pub const MIN_RATE: u64 = 96_000;

    /// Checks what can be checked without a host.
    pub fn validate(&self) -> Result<(), BadPolicy> {
        if let Some(group) = &self.group
            && !(1..=64).contains(&group.chars().count())
        {
            return Err(BadPolicy::Group);
        }
        let entries = self.allow.len() + self.egress.entries();
        if entries > Self::MAX_LIST {
            return Err(BadPolicy::TooMany(entries));
        }
        if let Egress::AllowList { domains, .. } = &self.egress
            && let Some(bad) = domains.iter().find(|domain| !is_domain(domain))
        {
            return Err(BadPolicy::Domain(bad.clone()));
        }
        let rates = [self.bandwidth.upload, self.bandwidth.download];
        if let Some(rate) = rates
            .into_iter()
            .flatten()
            .find(|rate| *rate < Self::MIN_RATE)
        {
            return Err(BadPolicy::Rate(rate));
        }
        self.validate_ports()
    }

    fn validate_ports(&self) -> Result<(), BadPolicy> {
        let mut seen: BTreeSet<PortKey> = BTreeSet::new();
        for port in &self.publish {
            if port.host_port == 0 || port.guest_port == 0 {
                return Err(BadPolicy::Port);
            }
            if let Some(ip) = port.host_ip
                && (ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast())
            {
                return Err(BadPolicy::HostIp(ip));
            }
            if seen.iter().any(|other| other.conflicts(&port.key())) {
                return Err(BadPolicy::Twice(port.host_port, port.protocol));
            }
            seen.insert(port.key());
        }
        Ok(())
    }

    /// Whether the DNS server may answer a question for a name of the outside. Names of instances are not asked here.
    pub fn may_resolve(&self, name: &str) -> bool {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match &self.egress {
            Egress::Open => true,
            Egress::None => false,
            Egress::AllowList { domains, .. } => domains.iter().any(|domain| {
                let domain = domain.to_ascii_lowercase();
                match domain.strip_prefix("*.") {
                    Some(parent) => name
                        .strip_suffix(parent)
                        .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
                    None => name == domain,
                }
            }),
        }
    }
}

impl Egress {
    fn entries(&self) -> usize {
        match self {
            Self::AllowList { cidrs, domains } => cidrs.len() + domains.len(),
            Self::Open | Self::None => 0,
        }
    }
}

fn is_domain(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    (1..=253).contains(&name.len()) && name.split('.').all(label)
}

#[cfg(test)]
mod tests;
