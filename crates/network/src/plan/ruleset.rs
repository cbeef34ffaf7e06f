//! The host's table, as text for `nft`.
//!
//! It is loaded once when a network is opened; afterwards only elements of its sets change. Sending it as text keeps
//! the security policy readable, here and in `nft list ruleset`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use ipnet::Ipv4Net;

use super::{Element, Names};
use crate::{Pool, Service};

/// Blocks that guests do not reach unless a policy allows it (IANA's special-purpose registry: this host, private
/// use, shared space, loopback, link-local with the metadata address of clouds, protocol assignments, benchmarks,
/// multicast, reserved).
pub const PRIVATE: [Ipv4Net; 11] = [
    block(0, 0, 0, 0, 8),
    block(10, 0, 0, 0, 8),
    block(100, 64, 0, 0, 10),
    block(127, 0, 0, 0, 8),
    block(169, 254, 0, 0, 16),
    block(172, 16, 0, 0, 12),
    block(192, 0, 0, 0, 24),
    block(192, 168, 0, 0, 16),
    block(198, 18, 0, 0, 15),
    block(224, 0, 0, 0, 4),
    block(240, 0, 0, 0, 4),
];

/// Sets and maps of the table: kind, name, type with flags.
const SETS: [(&str, &str, &str); 11] = [
    ("set", "private", "ipv4_addr; flags interval"),
    ("set", "services", "inet_proto . inet_service"),
    ("set", "slots", "ifname . ipv4_addr"),
    ("set", "open", "ipv4_addr"),
    ("set", "allow", "ipv4_addr . ipv4_addr; flags interval"),
    ("set", "egress", "ipv4_addr . ipv4_addr; flags interval"),
    ("set", "resolved", "ipv4_addr . ipv4_addr; flags timeout"),
    ("map", "group_of", "ipv4_addr : mark"),
    ("set", "members", "ipv4_addr . mark"),
    (
        "map",
        "publish",
        "inet_proto . inet_service : ipv4_addr . inet_service",
    ),
    (
        "map",
        "publish_at",
        "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service",
    ),
];

const fn block(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

/// What the table is made of.
#[derive(Debug)]
pub struct Ruleset<'a> {
    /// Names.
    pub names: &'a Names,
    /// Addresses.
    pub pool: Pool,
    /// DNS server of guests; its address is a real one.
    pub dns: Option<SocketAddrV4>,
    /// Elements of the slots that are in use.
    pub elements: &'a BTreeSet<Element>,
    /// Ports of the host that guests may reach.
    pub services: &'a [Service],
}

impl Ruleset<'_> {
    /// One transaction that replaces the table as a whole.
    pub fn text(&self) -> String {
        let table = self.names.table();
        let mut text = format!("table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n");
        self.sets(&mut text);
        self.nat(&mut text);
        self.filter(&mut text);
        text.push_str("}\n");
        text
    }

    fn sets(&self, text: &mut String) {
        let private = list(PRIVATE.iter().map(ToString::to_string));
        let services = list(
            self.services
                .iter()
                .map(|service| format!("{} . {}", service.protocol, service.port)),
        );
        for (kind, name, of) in SETS {
            let elements = match name {
                "private" => private.clone(),
                "services" => services.clone(),
                _ => self.listed(name),
            };
            let elements = if elements.is_empty() {
                elements
            } else {
                format!("elements = {{ {elements} }}; ")
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {kind} {name} {{ type {of}; {elements}}}");
        }
    }

    fn nat(&self, text: &mut String) {
        let links = self.links();
        let host = self.pool.host();
        let block = self.pool.block();
        let dns = self.dns.map_or_else(String::new, |server| {
            format!(
                "    iifname {links} ip daddr {host} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {}:{}\n",
                server.ip(),
                server.port()
            )
        });
        // Only what is addressed to the host itself is a published port; loopback belongs to the ingress.
        let publish = "    ip daddr 127.0.0.0/8 return
    dnat ip to ip daddr . meta l4proto . th dport map @publish_at
    fib daddr type local dnat ip to meta l4proto . th dport map @publish\n";
        // When a slot uses a published port, the answer has to come back through the host.
        let _ = write!(
            text,
            "  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
{dns}{publish}  }}
  chain output {{
    type nat hook output priority -100; policy accept;
{publish}  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {block} oifname != {links} masquerade
    ip saddr {block} oifname {links} ct status dnat snat ip to {host}
  }}\n"
        );
    }

    fn filter(&self, text: &mut String) {
        let links = self.links();
        let dns = self.dns.map_or_else(String::new, |server| {
            format!(
                "    ip daddr {} meta l4proto {{ tcp, udp }} th dport {} accept\n",
                server.ip(),
                server.port()
            )
        });
        // A TCP packet that neither opens a connection nor belongs to one is of an earlier owner of the address.
        let _ = write!(
            text,
            "  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    iifname {links} jump from_guest
    oifname {links} jump to_guest
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname {links} jump to_host
  }}
  chain out {{
    type filter hook output priority filter - 10; policy accept;
    oifname {links} jump from_host
  }}
  chain stale {{
    ct state invalid drop
    ct state new tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset
  }}
  chain from_guest {{
    iifname . ip saddr != @slots drop
    tcp flags syn tcp option maxseg size set rt mtu
    oifname {links} goto guest_to_guest
    jump stale
    ct state established,related accept
    ip saddr . ip daddr @allow accept
{dns}    ip daddr @private drop
    ip saddr @open accept
    ip saddr . ip daddr @egress accept
    ip saddr . ip daddr @resolved accept
    drop
  }}
  chain guest_to_guest {{
    oifname . ip daddr != @slots drop
    jump stale
    ct state established,related accept
    ct status dnat ip saddr @open accept
    meta mark set ip saddr map @group_of ip daddr . meta mark @members meta mark set 0 accept
    drop
  }}
  chain to_guest {{
    oifname . ip daddr != @slots drop
    tcp flags syn tcp option maxseg size set rt mtu
    jump stale
    ct state established,related accept
    ct status dnat accept
    drop
  }}
  chain to_host {{
    iifname . ip saddr != @slots drop
    jump stale
    ct state established,related accept
{dns}    ip saddr @open meta l4proto . th dport @services accept
    drop
  }}
  chain from_host {{
    oifname . ip daddr != @slots reject with icmp type host-unreachable
    jump stale
    accept
  }}\n"
        );
    }

    fn links(&self) -> String {
        format!("\"{}*\"", self.names.link_prefix())
    }

    fn listed(&self, set: &str) -> String {
        list(
            self.elements
                .iter()
                .filter(|element| element.set() == set)
                .map(Element::text),
        )
    }
}

impl Element {
    /// Name of its set or map in the table.
    pub fn set(&self) -> &'static str {
        match self {
            Self::Slot { .. } => "slots",
            Self::Open { .. } => "open",
            Self::Allow { .. } => "allow",
            Self::Egress { .. } => "egress",
            Self::GroupOf { .. } => "group_of",
            Self::Member { .. } => "members",
            Self::Publish { host_ip: None, .. } => "publish",
            Self::Publish {
                host_ip: Some(_), ..
            } => "publish_at",
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Slot { link, address } => format!("\"{link}\" . {address}"),
            Self::Open { from } => from.to_string(),
            Self::Allow { from, to } | Self::Egress { from, to } => format!("{from} . {to}"),
            Self::GroupOf { from, group } => format!("{from} : {group:#x}"),
            Self::Member { address, group } => format!("{address} . {group:#x}"),
            Self::Publish {
                protocol,
                host_ip,
                host_port,
                to,
                guest_port,
            } => {
                let ip = host_ip.map_or_else(String::new, |ip| format!("{ip} . "));
                format!("{ip}{protocol} . {host_port} : {to} . {guest_port}")
            }
        }
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
