//! Asking the resolvers of the host.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::config::Dns;

/// Datagrams that pass every network (DNS flag day 2020).
pub(super) const SAFE_PAYLOAD: u16 = 1232;
/// Resolvers that are asked, as in glibc's `MAXNS`.
const MAX_RESOLVERS: usize = 3;
/// Where the host says which resolvers it uses.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Which resolvers are asked.
#[derive(Debug)]
pub(crate) struct Upstreams {
    given: Vec<SocketAddr>,
    /// Ours, which would ask themselves.
    not: Vec<SocketAddr>,
    limit: Duration,
}

impl Upstreams {
    pub(crate) fn new(dns: &Dns) -> Self {
        Self {
            given: dns.upstreams.clone(),
            not: dns
                .listeners
                .iter()
                .map(|listener| listener.address)
                .collect(),
            limit: Duration::from_millis(dns.upstream_ms),
        }
    }

    /// The resolvers in the order in which they are asked. The host's are read each time: they
    /// change when the host moves to another network.
    fn current(&self) -> Vec<SocketAddr> {
        let mut resolvers = match self.given.as_slice() {
            [] => in_resolv_conf(&std::fs::read_to_string(RESOLV_CONF).unwrap_or_default()),
            given => given.to_vec(),
        };
        resolvers.retain(|resolver| !self.not.contains(resolver));
        resolvers.truncate(MAX_RESOLVERS);
        // A lost datagram is asked for again even if there is nobody else.
        if let [only] = resolvers[..] {
            resolvers.push(only);
        }
        resolvers
    }

    /// The first answer that is one; `None` if there is none in time.
    pub(super) async fn ask(&self, query: &Query) -> Option<Message> {
        let mut last = None;
        for resolver in self.current() {
            match timeout(self.limit, ask(resolver, query)).await {
                Ok(Ok(answer)) => {
                    let useless = matches!(
                        answer.metadata.response_code,
                        ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp
                    );
                    if !useless {
                        return Some(answer);
                    }
                    last = Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%error, %resolver, "a resolver cannot be asked"),
                Err(_) => tracing::debug!(%resolver, "a resolver does not answer"),
            }
        }
        last
    }
}

fn in_resolv_conf(text: &str) -> Vec<SocketAddr> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"));
    // A scope after a link-local address is not supported by sockets addressed without one.
    let addresses = lines.filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok());
    addresses
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

async fn ask(resolver: SocketAddr, query: &Query) -> io::Result<Message> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let mut message = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(SAFE_PAYLOAD);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = by_udp(resolver, &bytes, &message).await?;
    if answer.metadata.truncation {
        return by_tcp(resolver, &bytes, &message).await;
    }
    Ok(answer)
}

/// Whether a message answers ours; anything else on the socket is somebody's guess.
fn answers(answer: &Message, asked: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == asked.metadata.id
        && match (answer.queries.as_slice(), asked.queries.as_slice()) {
            ([theirs], [ours]) => theirs == ours,
            _ => false,
        }
}

async fn by_udp(resolver: SocketAddr, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    let any = match resolver {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    // A port of its own for each question: two numbers to guess instead of one.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(bytes).await?;
    let mut datagram = [0; SAFE_PAYLOAD as usize];
    loop {
        let length = socket.recv(&mut datagram).await?;
        if let Ok(answer) = Message::from_vec(&datagram[..length])
            && answers(&answer, asked)
        {
            return Ok(answer);
        }
    }
}

async fn by_tcp(resolver: SocketAddr, bytes: &[u8], asked: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(resolver).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream
        .write_all(&[&length.to_be_bytes(), bytes].concat())
        .await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
    if !answers(&answer, asked) {
        return Err(io::Error::other("the answer is to another question"));
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_of_the_host_are_read() {
        let text = "# a comment\nsearch example.com\nnameserver 10.0.0.1\n nameserver\t::1 # mine\nnameserver x\n";
        let expected: [SocketAddr; 2] =
            ["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(in_resolv_conf(text), expected);
    }

    #[test]
    fn an_edge_never_asks_itself() {
        let mut dns = Dns::default();
        let own = "127.0.0.1:53".parse().unwrap();
        dns.upstreams = vec![own, "127.0.0.2:53".parse().unwrap()];
        dns.listeners.push(crate::config::DnsListener {
            address: own,
            audience: crate::config::Audience::HostRecursive,
        });
        let other = "127.0.0.2:53".parse().unwrap();
        assert_eq!(Upstreams::new(&dns).current(), [other, other]);
    }
}
