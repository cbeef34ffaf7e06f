//! Answers of the world, on their way to whom they are for.

use std::net::IpAddr;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::rdata::SVCB;
use hickory_proto::rr::rdata::svcb::SvcParamValue;
use hickory_proto::rr::{RData, Record};
use ipnet::IpNet;

use super::policy::Filter;
use super::ranges::may_point_to;
use crate::control::{Resolved, ResolvedAddress};
use crate::live::Edge;

/// What the resolvers say, without what must not be said. SERVFAIL if they say nothing, or if the
/// addresses are not allowed.
pub(super) async fn forwarded(
    edge: &Edge,
    query: &Query,
    filter: Filter,
    source: IpAddr,
) -> (ResponseCode, Vec<Record>, Vec<Record>) {
    let failed = (ResponseCode::ServFail, Vec::new(), Vec::new());
    let Some(answer) = edge.live().upstreams.ask(query).await else {
        return failed;
    };
    let Message {
        metadata,
        answers,
        authorities,
        ..
    } = answer;
    let (reachable, report) = match filter {
        Filter::Nothing => return (metadata.response_code, answers, authorities),
        Filter::Private(reachable) => (reachable, None),
        Filter::Allowed {
            reachable,
            instance,
            generation,
        } => (reachable, Some((instance, generation))),
    };
    let all = answers.len();
    let answers: Vec<_> = answers
        .into_iter()
        .filter(|record| may_be_told(&record.data, &reachable))
        .collect();
    if answers.len() < all {
        tracing::info!(%source, name = %query.name, "addresses of private networks were taken out of an answer");
    }
    if let Some((instance, generation)) = report {
        let addresses: Vec<_> = answers.iter().flat_map(told).collect();
        if !addresses.is_empty() {
            let resolved = Resolved {
                instance,
                generation,
                source,
                name: query
                    .name
                    .to_ascii()
                    .trim_end_matches('.')
                    .to_ascii_lowercase(),
                addresses,
            };
            if !edge.reporter().allow(resolved).await {
                return failed;
            }
        }
    }
    // The authority section is only needed where there is nothing else: it says for how long.
    let authorities = if answers.is_empty() {
        authorities
    } else {
        Vec::new()
    };
    (metadata.response_code, answers, authorities)
}

/// Addresses in a record, hints included.
fn addresses(data: &RData) -> Vec<IpAddr> {
    match data {
        RData::A(address) => vec![address.0.into()],
        RData::AAAA(address) => vec![address.0.into()],
        RData::HTTPS(https) => hints(&https.0),
        RData::SVCB(svcb) => hints(svcb),
        _ => Vec::new(),
    }
}

fn hints(svcb: &SVCB) -> Vec<IpAddr> {
    let hints = svcb.svc_params.iter().map(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|address| address.0.into()).collect(),
        SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|address| address.0.into()).collect(),
        _ => Vec::new(),
    });
    hints.collect::<Vec<Vec<IpAddr>>>().concat()
}

fn may_be_told(data: &RData, reachable: &[IpNet]) -> bool {
    addresses(data)
        .into_iter()
        .all(|address| may_point_to(address, reachable))
}

fn told(record: &Record) -> impl Iterator<Item = ResolvedAddress> {
    let ttl_seconds = record.ttl;
    addresses(&record.data)
        .into_iter()
        .map(move |address| ResolvedAddress {
            address,
            ttl_seconds,
        })
}
