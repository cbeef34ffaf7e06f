//! nftables by netlink: transactions, elements of sets, lists of tables and chains.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST};
use netlink_sys::protocols::NETLINK_NETFILTER;

use super::nla::{self, Attributes};
use super::socket::{Netlink, message};
use crate::Protocol;
use crate::plan::{Change, Element};

/// `NFNL_SUBSYS_NFTABLES`, in the upper half of a message's type.
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFPROTO_IPV4`.
pub(super) const IPV4: u8 = 2;
/// `NFPROTO_NETDEV`.
pub(super) const NETDEV: u8 = 5;
/// Elements in one message: far below the 64 KiB an attribute can hold.
const CHUNK: usize = 200;

/// `NFT_MSG_…`.
pub(super) mod kind {
    pub(crate) const NEW_TABLE: u16 = 0;
    pub(crate) const GET_TABLE: u16 = 1;
    pub(crate) const DEL_TABLE: u16 = 2;
    pub(crate) const NEW_CHAIN: u16 = 3;
    pub(crate) const GET_CHAIN: u16 = 4;
    pub(crate) const NEW_RULE: u16 = 6;
    pub(crate) const NEW_ELEMENT: u16 = 12;
    pub(crate) const DEL_ELEMENT: u16 = 14;
}

/// nftables of one namespace.
pub(super) struct Nft(Netlink);

/// Messages that take effect together or not at all.
#[derive(Default)]
pub(super) struct Transaction(Vec<(u16, u16, Vec<u8>)>);

/// A base chain of somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BaseChain {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) name: String,
    pub(super) hook: u32,
    pub(super) drops: bool,
}

impl Transaction {
    /// Adds a message: its kind, flags, family and attributes.
    pub(super) fn push(&mut self, kind: u16, flags: u16, family: u8, attributes: &Attributes) {
        let mut body = vec![family, 0, 0, 0];
        body.extend(attributes.bytes());
        self.0.push((kind, flags, body));
    }

    /// Adds the steps of a change of `table`.
    pub(super) fn change(&mut self, table: &str, change: &Change) {
        self.elements(kind::DEL_ELEMENT, table, &change.remove);
        self.elements(kind::NEW_ELEMENT, table, &change.add);
    }

    fn elements(&mut self, kind: u16, table: &str, elements: &[Element]) {
        let mut rest: Vec<&Element> = elements.iter().collect();
        rest.sort_by_key(|element| element.set());
        for run in rest.chunk_by(|one, other| one.set() == other.set()) {
            for chunk in run.chunks(CHUNK) {
                let encoded = chunk.iter().map(|element| encode(element));
                self.list(kind, table, chunk[0].set(), encoded);
            }
        }
    }

    /// Adds or removes addresses that a slot resolved.
    pub(super) fn resolved(
        &mut self,
        add: bool,
        table: &str,
        from: Ipv4Addr,
        to: &[(Ipv4Addr, Duration)],
    ) {
        let kind = if add {
            kind::NEW_ELEMENT
        } else {
            kind::DEL_ELEMENT
        };
        for chunk in to.chunks(CHUNK) {
            let encoded = chunk.iter().map(|(to, ttl)| {
                let element =
                    Attributes::default().nest(KEY, &value(&[from.octets(), to.octets()].concat()));
                let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                if add {
                    element.put(TIMEOUT, &milliseconds.to_be_bytes())
                } else {
                    element
                }
            });
            self.list(kind, table, "resolved", encoded);
        }
    }

    /// Adds or removes a port of the host that guests may reach.
    pub(super) fn service(&mut self, add: bool, table: &str, protocol: Protocol, port: u16) {
        let kind = if add {
            kind::NEW_ELEMENT
        } else {
            kind::DEL_ELEMENT
        };
        let key = [field_protocol(protocol), field_port(port)].concat();
        let element = Attributes::default().nest(KEY, &value(&key));
        self.list(kind, table, "services", std::iter::once(element));
    }

    fn list(
        &mut self,
        kind: u16,
        table: &str,
        set: &str,
        elements: impl Iterator<Item = Attributes>,
    ) {
        // NFTA_LIST_ELEM in NFTA_SET_ELEM_LIST_ELEMENTS.
        let list = elements.fold(Attributes::default(), |list, element| {
            list.nest(1, &element)
        });
        let attributes = Attributes::default()
            .text(1, table)
            .text(2, set)
            .nest(3, &list);
        let flags = if kind == kind::NEW_ELEMENT {
            NLM_F_CREATE
        } else {
            0
        };
        self.push(kind, flags, IPV4, &attributes);
    }
}

impl Nft {
    /// Of the calling thread's namespace.
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_NETFILTER).map(Self)
    }

    /// Commits a transaction.
    pub(super) fn commit(&mut self, transaction: &Transaction) -> io::Result<()> {
        let Some(count) = transaction.0.len().checked_sub(1) else {
            return Ok(());
        };
        // Family unspecified, version 0, and the subsystem in network order.
        let frame = [0, 0, 0, 10];
        let first = self.0.next();
        let mut bytes = message(BATCH_BEGIN, NLM_F_REQUEST, first, &frame);
        let mut last = first;
        for (n, (kind, flags, body)) in transaction.0.iter().enumerate() {
            last = self.0.next();
            let ack = if n == count { NLM_F_ACK } else { 0 };
            let flags = flags | NLM_F_REQUEST | ack;
            bytes.extend(message(SUBSYSTEM << 8 | kind, flags, last, body));
        }
        let end = self.0.next();
        bytes.extend(message(BATCH_END, NLM_F_REQUEST, end, &frame));
        self.0.exchange(&bytes, first, last, |_| ())
    }

    /// Names of all IPv4 tables.
    pub(super) fn tables(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        self.0.dump(
            SUBSYSTEM << 8 | kind::GET_TABLE,
            &[IPV4, 0, 0, 0],
            |message| {
                let attributes = message.body().get(4..).unwrap_or_default();
                names.extend(nla::find(attributes, 1).map(text));
            },
        )?;
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// All base chains of IPv4, of all families that see it.
    pub(super) fn base_chains(&mut self) -> io::Result<Vec<BaseChain>> {
        let mut chains = Vec::new();
        self.0
            .dump(SUBSYSTEM << 8 | kind::GET_CHAIN, &[0, 0, 0, 0], |message| {
                chains.extend(base_chain(message.body()));
            })?;
        chains.dedup();
        Ok(chains)
    }

    /// Removes a table; it is no error if it is not there.
    pub(super) fn remove_table(&mut self, name: &str) -> io::Result<()> {
        let mut transaction = Transaction::default();
        transaction.push(
            kind::DEL_TABLE,
            0,
            IPV4,
            &Attributes::default().text(1, name),
        );
        super::route::absent(self.commit(&transaction))
    }
}

/// `NFTA_SET_ELEM_…`.
const KEY: u16 = 1;
const DATA: u16 = 2;
const TIMEOUT: u16 = 4;
const KEY_END: u16 = 10;

/// `NFTA_DATA_VALUE`.
pub(super) fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().put(1, bytes)
}

/// An element as its set wants it: fields of a concatenation are padded to four bytes each.
fn encode(element: &Element) -> Attributes {
    let key = |bytes: &[u8]| Attributes::default().nest(KEY, &value(bytes));
    match element {
        Element::Slot { link, address } => {
            key(&[&field_link(link)[..], &address.octets()].concat())
        }
        Element::Open { from } => key(&from.octets()),
        Element::Allow { from, to } | Element::Egress { from, to } => {
            let end = [from.octets(), to.broadcast().octets()].concat();
            key(&[from.octets(), to.network().octets()].concat()).nest(KEY_END, &value(&end))
        }
        Element::GroupOf { from, group } => {
            key(&from.octets()).nest(DATA, &value(&group.to_ne_bytes()))
        }
        Element::Member { address, group } => {
            key(&[address.octets(), group.to_ne_bytes()].concat())
        }
        Element::Publish {
            protocol,
            host_ip,
            host_port,
            to,
            guest_port,
        } => {
            let port = [field_protocol(*protocol), field_port(*host_port)].concat();
            let ip = host_ip.map_or_else(Vec::new, |ip| ip.octets().to_vec());
            let data = [to.octets(), field_port(*guest_port)].concat();
            key(&[ip, port].concat()).nest(DATA, &value(&data))
        }
    }
}

/// An interface's name as the kernel compares it: 16 bytes, zeroes at the end.
pub(super) fn field_link(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    for (to, from) in field.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    field
}

fn field_protocol(protocol: Protocol) -> [u8; 4] {
    [number(protocol), 0, 0, 0]
}

fn field_port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Number of a transport protocol (IANA).
pub(super) fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

fn base_chain(body: &[u8]) -> Option<BaseChain> {
    let attributes = body.get(4..)?;
    let hook = nla::find(attributes, 4)?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    Some(BaseChain {
        family: *body.first()?,
        table: text(nla::find(attributes, 1)?),
        name: text(nla::find(attributes, 3)?),
        hook: nla::find(hook, 1).and_then(number)?,
        drops: nla::find(attributes, 5).and_then(number) == Some(0),
    })
}

fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
