//! From the bytes of a question to the bytes of its answer.

use std::net::IpAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR};
use hickory_proto::rr::{Name, RData, Record};

use super::forwarded::forwarded;
use super::policy::{Asked, Decision, decide};
use super::upstream::SAFE_PAYLOAD;
use crate::config::Audience;
use crate::live::Edge;

/// Instances move; their addresses must not be remembered for long.
const TTL_SECONDS: u32 = 2;
/// Longest answer in a datagram without EDNS, in bytes (RFC 1035, 4.2.1).
const PLAIN_PAYLOAD: u16 = 512;

/// What a listener's questions have in common.
#[derive(Debug, Clone)]
pub(super) struct Responder {
    pub(super) edge: Arc<Edge>,
    pub(super) audience: Audience,
}

/// How an answer travels, which bounds its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Stream,
}

impl Responder {
    /// The answer to a message; `None` for what deserves none.
    pub(super) async fn respond(
        &self,
        bytes: &[u8],
        source: IpAddr,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let started = Instant::now();
        let metrics = self.edge.metrics();
        let Ok(asked) = Message::from_vec(bytes) else {
            metrics.dns_dropped.one();
            return malformed(bytes);
        };
        // Answering an answer makes two servers talk for ever.
        if asked.metadata.message_type != MessageType::Query {
            metrics.dns_dropped.one();
            return None;
        }
        let source = source.to_canonical();
        let answer = self.answer(&asked, source).await;
        match answer.metadata.response_code {
            ResponseCode::NoError => metrics.dns_answered.one(),
            ResponseCode::NXDomain => metrics.dns_no_name.one(),
            ResponseCode::Refused => metrics.dns_refused.one(),
            _ => metrics.dns_failed.one(),
        }
        metrics.dns_duration.observe(started.elapsed());
        fit(&answer, &asked, transport)
    }

    async fn answer(&self, asked: &Message, source: IpAddr) -> Message {
        let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
        answer.metadata.recursion_desired = asked.metadata.recursion_desired;
        answer.metadata.recursion_available = self.audience != Audience::Host;
        answer.add_queries(asked.queries.iter().cloned());
        if asked.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(SAFE_PAYLOAD);
            answer.set_edns(edns);
        }
        let code = match (asked.metadata.op_code, asked.queries.as_slice()) {
            (OpCode::Query, [query]) => self.resolve(query, source, &mut answer).await,
            (OpCode::Query, _) => ResponseCode::FormErr,
            (_, _) => ResponseCode::NotImp,
        };
        answer.metadata.response_code = code;
        answer
    }

    async fn resolve(&self, query: &Query, source: IpAddr, answer: &mut Message) -> ResponseCode {
        let live = self.edge.live();
        let instances = self.edge.instances();
        if !instances.is_filled() {
            return ResponseCode::ServFail;
        }
        let asked = Asked {
            name: query.name(),
            kind: query.query_type(),
            class: query.query_class(),
            audience: self.audience,
            source,
        };
        let own = |data| Record::from_rdata(query.name().clone(), TTL_SECONDS, data);
        let decision = decide(
            &asked,
            &live.config.dns.zone.to_ascii_lowercase(),
            &instances,
        );
        // Forwarding takes long, and the directory should not be kept that long.
        drop(instances);
        answer.metadata.authoritative =
            !matches!(decision, Decision::Forward(_) | Decision::Refused);
        match decision {
            Decision::Address(IpAddr::V4(address)) => {
                answer.add_answer(own(RData::A(A(address))));
                ResponseCode::NoError
            }
            Decision::Address(IpAddr::V6(address)) => {
                answer.add_answer(own(RData::AAAA(AAAA(address))));
                ResponseCode::NoError
            }
            Decision::Name(name) => {
                // Names of instances and a checked zone always make a name.
                if let Ok(name) = Name::from_str(&name) {
                    answer.add_answer(own(RData::PTR(PTR(name))));
                }
                ResponseCode::NoError
            }
            Decision::NoData => ResponseCode::NoError,
            Decision::NoName => ResponseCode::NXDomain,
            Decision::Refused => ResponseCode::Refused,
            Decision::Forward(filter) => {
                let (code, answers, authorities) =
                    forwarded(&self.edge, query, filter, source).await;
                answer.add_answers(answers);
                answer.add_authorities(authorities);
                code
            }
        }
    }
}

/// What can be said of bytes that are no message: that they are none, if they have an id and are
/// not an answer themselves.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let head: &[u8; 12] = bytes.first_chunk()?;
    if head[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([head[0], head[1]]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)
        .to_vec()
        .ok()
}

/// The bytes of an answer, cut to what the client takes.
fn fit(answer: &Message, asked: &Message, transport: Transport) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let most = match (transport, &asked.edns) {
        (Transport::Stream, _) => u16::MAX,
        (Transport::Datagram, Some(edns)) => edns.max_payload().clamp(PLAIN_PAYLOAD, SAFE_PAYLOAD),
        (Transport::Datagram, None) => PLAIN_PAYLOAD,
    };
    if bytes.len() <= usize::from(most) {
        return Some(bytes);
    }
    answer.truncate().to_vec().ok()
}
