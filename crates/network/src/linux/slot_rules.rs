//! The rules inside a slot's namespace: what the TAP may send, and the exchange of addresses.
//!
//! They are the same in every slot but for the outside address. No expression asks for a connection's state, so the
//! kernel tracks none here.

use std::io;
use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};

use super::nft::{IPV4, NETDEV, Nft, Transaction, field_link, kind, number, value};
use super::nla::Attributes;
use crate::{Protocol, guest};

/// Table of these rules.
const TABLE: &str = "slot";
/// Name of the veth's end in the namespace.
pub(super) const UPLINK: &str = "up0";

/// Addresses that are exchanged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Addresses {
    /// Outside address of the slot.
    pub(super) outside: Ipv4Addr,
    /// Address of the host, where DNS is asked.
    pub(super) host: Ipv4Addr,
}

/// Loads the rules into the namespace of the calling thread.
pub(super) fn load(addresses: Addresses) -> io::Result<()> {
    let mut rules = Rules(Transaction::default());
    tap(&mut rules);
    exchange(&mut rules, addresses);
    Nft::open()?.commit(&rules.0)
}

/// On the TAP: only this MAC, ARP and IPv4, and only from the guest's address.
fn tap(rules: &mut Rules) {
    rules.table(NETDEV);
    rules.chain(NETDEV, "tap", 0, 0, Some(guest::TAP));
    let mut add = |rule: Rule| rules.add(NETDEV, "tap", &rule);
    add(Rule::new().load(LINK, 6, 6).differs(&guest::MAC).drop());
    add(Rule::new()
        .meta(META_PROTOCOL)
        .equals(&ETHERTYPE_IPV4)
        .load(NETWORK, 12, 4)
        .equals(&guest::ADDRESS.octets())
        .accept());
    add(Rule::new()
        .meta(META_PROTOCOL)
        .equals(&ETHERTYPE_ARP)
        // Hardware and protocol address of the sender.
        .load(NETWORK, 8, 10)
        .equals(&[&guest::MAC[..], &guest::ADDRESS.octets()].concat())
        .accept());
    add(Rule::new().drop());
}

fn exchange(rules: &mut Rules, Addresses { outside, host }: Addresses) {
    rules.table(IPV4);
    rules.chain(IPV4, "before", 0, -300, None);
    rules.chain(IPV4, "local", 1, 0, None);
    rules.chain(IPV4, "after", 4, 100, None);
    let (inside, gateway) = (guest::ADDRESS.octets(), guest::GATEWAY.octets());
    let (outside, host) = (outside.octets(), host.octets());
    rules.add(IPV4, "before", &Rule::new().expression("notrack", None));
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let dns = |port_at| {
            Rule::new()
                .meta(META_L4PROTO)
                .equals(&[number(protocol)])
                .load(TRANSPORT, port_at, 2)
                .equals(&53_u16.to_be_bytes())
        };
        let ask = dns(2)
            .enters(guest::TAP)
            .load(NETWORK, DESTINATION, 4)
            .equals(&gateway);
        rules.add(IPV4, "before", &ask.write_address(DESTINATION, host));
        let answer = dns(0)
            .leaves(guest::TAP)
            .load(NETWORK, SOURCE, 4)
            .equals(&host);
        rules.add(IPV4, "after", &answer.write_address(SOURCE, gateway));
    }
    // ICMP errors quote the packet they are about; who sent it has to know its own address again.
    for (error, quoted, links) in [
        ("before", QUOTED_SOURCE, true),
        ("after", QUOTED_DESTINATION, false),
    ] {
        let (old, new) = if links {
            (outside, inside)
        } else {
            (inside, outside)
        };
        for code in ICMP_ERRORS {
            let rule = Rule::new()
                .meta(META_L4PROTO)
                .equals(&[1])
                .load(TRANSPORT, 0, 1)
                .equals(&[code]);
            let rule = if links {
                rule.enters(UPLINK)
            } else {
                rule.leaves(UPLINK)
            };
            let rule = rule.load(TRANSPORT, quoted, 4).equals(&old);
            rules.add(IPV4, error, &rule.write_quoted(quoted, new));
        }
    }
    let enters = Rule::new()
        .enters(UPLINK)
        .load(NETWORK, DESTINATION, 4)
        .equals(&outside);
    rules.add(IPV4, "before", &enters.write_address(DESTINATION, inside));
    let leaves = Rule::new()
        .leaves(UPLINK)
        .load(NETWORK, SOURCE, 4)
        .equals(&inside);
    rules.add(IPV4, "after", &leaves.write_address(SOURCE, outside));
    // The namespace itself answers the guest's ping, and nobody else.
    let ping = Rule::new()
        .enters(guest::TAP)
        .meta(META_L4PROTO)
        .equals(&[1])
        .load(TRANSPORT, 0, 1)
        .equals(&[8]);
    rules.add(IPV4, "local", &ping.accept());
    rules.add(IPV4, "local", &Rule::new().drop());
}

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Destination unreachable, time exceeded, parameter problem.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];

/// `NFT_PAYLOAD_…_HEADER`.
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

/// Offsets in an IPv4 header.
const CHECKSUM: u32 = 10;
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
/// Length of an ICMP header, after which the quoted IPv4 header begins.
const ICMP: u32 = 8;
const QUOTED_SOURCE: u32 = ICMP + SOURCE;
const QUOTED_DESTINATION: u32 = ICMP + DESTINATION;

/// `NFT_META_…`.
const META_PROTOCOL: u32 = 1;
const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;

/// `NFT_REG_1`.
const REGISTER: u32 = 1;

struct Rules(Transaction);

impl Rules {
    fn table(&mut self, family: u8) {
        let table = Attributes::default().text(1, TABLE);
        self.0.push(kind::NEW_TABLE, NLM_F_CREATE, family, &table);
    }

    fn chain(&mut self, family: u8, name: &str, hook: u32, priority: i32, device: Option<&str>) {
        let mut point = Attributes::default()
            .be32(1, hook)
            .be32(2, priority.cast_unsigned());
        if let Some(device) = device {
            point = point.text(3, device);
        }
        let chain = Attributes::default()
            .text(1, TABLE)
            .text(3, name)
            .nest(4, &point)
            .text(7, "filter");
        self.0.push(kind::NEW_CHAIN, NLM_F_CREATE, family, &chain);
    }

    fn add(&mut self, family: u8, chain: &str, rule: &Rule) {
        let rule = Attributes::default()
            .text(1, TABLE)
            .text(2, chain)
            .nest(4, &rule.0);
        self.0
            .push(kind::NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, family, &rule);
    }
}

/// Expressions of a rule, evaluated one after the other until one does not match.
struct Rule(Attributes);

impl Rule {
    fn new() -> Self {
        Self(Attributes::default())
    }

    fn expression(self, name: &str, data: Option<&Attributes>) -> Self {
        let mut expression = Attributes::default().text(1, name);
        if let Some(data) = data {
            expression = expression.nest(2, data);
        }
        Self(self.0.nest(1, &expression))
    }

    fn meta(self, key: u32) -> Self {
        self.expression(
            "meta",
            Some(&Attributes::default().be32(1, REGISTER).be32(2, key)),
        )
    }

    fn load(self, base: u32, offset: u32, length: u32) -> Self {
        let load = Attributes::default()
            .be32(1, REGISTER)
            .be32(2, base)
            .be32(3, offset)
            .be32(4, length);
        self.expression("payload", Some(&load))
    }

    fn equals(self, wanted: &[u8]) -> Self {
        self.compare(0, wanted)
    }

    fn differs(self, wanted: &[u8]) -> Self {
        self.compare(1, wanted)
    }

    fn compare(self, operator: u32, wanted: &[u8]) -> Self {
        let compare = Attributes::default()
            .be32(1, REGISTER)
            .be32(2, operator)
            .nest(3, &value(wanted));
        self.expression("cmp", Some(&compare))
    }

    fn enters(self, name: &str) -> Self {
        self.meta(META_IIFNAME).equals(&field_link(name))
    }

    fn leaves(self, name: &str) -> Self {
        self.meta(META_OIFNAME).equals(&field_link(name))
    }

    /// Writes an address of the IPv4 header, and corrects its checksum and that of TCP and UDP.
    fn write_address(self, offset: u32, address: [u8; 4]) -> Self {
        let write = Attributes::default()
            .be32(5, REGISTER)
            .be32(2, NETWORK)
            .be32(3, offset)
            .be32(4, 4)
            // NFT_PAYLOAD_CSUM_INET, and the pseudo header of the transport.
            .be32(6, 1)
            .be32(7, CHECKSUM)
            .be32(8, 1);
        self.immediate(&address).expression("payload", Some(&write))
    }

    /// Writes an address of a quoted IPv4 header and corrects that header's checksum. Their sum stays the same, and
    /// so the checksum of the ICMP message that quotes them is right as it is.
    fn write_quoted(self, offset: u32, address: [u8; 4]) -> Self {
        let write = Attributes::default()
            .be32(5, REGISTER)
            .be32(2, TRANSPORT)
            .be32(3, offset)
            .be32(4, 4)
            .be32(6, 1)
            .be32(7, ICMP + CHECKSUM);
        self.immediate(&address).expression("payload", Some(&write))
    }

    fn immediate(self, bytes: &[u8]) -> Self {
        let immediate = Attributes::default()
            .be32(1, REGISTER)
            .nest(2, &value(bytes));
        self.expression("immediate", Some(&immediate))
    }

    fn accept(self) -> Self {
        self.verdict(1)
    }

    fn drop(self) -> Self {
        self.verdict(0)
    }

    fn verdict(self, code: u32) -> Self {
        let verdict = Attributes::default().nest(2, &Attributes::default().be32(1, code));
        self.expression(
            "immediate",
            Some(&Attributes::default().be32(1, 0).nest(2, &verdict)),
        )
    }
}
