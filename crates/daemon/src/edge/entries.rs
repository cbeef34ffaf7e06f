//! One instance as the edge knows it: pure.

use edge::{DomainPattern, Egress, Entry};
use model::network::Policy;

use crate::instances::View;

/// What the edge is told of an instance.
pub(super) fn entry(view: &View) -> Entry {
    let record = &view.record;
    let policy = record.spec.network.policy_in(&record.spec.tags);
    let started = record.started_at.map_or(0, |at| at.0);
    Entry {
        id: record.id.clone(),
        name: Some(record.name.clone()),
        address: record.lease.map(|lease| lease.address.into()),
        // Later with every machine that the instance becomes.
        generation: u64::try_from(started).unwrap_or(0),
        state: view.published.state,
        egress: egress(&policy),
        reachable: reachable(&policy),
        group: policy.group,
    }
}

fn egress(policy: &Policy) -> Egress {
    match &policy.egress {
        model::network::Egress::Open => Egress::Open,
        model::network::Egress::None => Egress::None,
        // A pattern that the edge does not know opens nothing.
        model::network::Egress::AllowList { domains, .. } => Egress::Domains(
            domains
                .iter()
                .filter_map(|domain| domain.parse::<DomainPattern>().ok())
                .collect(),
        ),
    }
}

fn reachable(policy: &Policy) -> Vec<ipnet::IpNet> {
    let listed = match &policy.egress {
        model::network::Egress::AllowList { cidrs, .. } => cidrs.as_slice(),
        model::network::Egress::Open | model::network::Egress::None => &[],
    };
    policy
        .allow
        .iter()
        .chain(listed)
        .map(|block| ipnet::IpNet::V4(*block))
        .collect()
}
