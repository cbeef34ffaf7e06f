//! What a fork takes from its source, and what it never does (specification §3.6).

use crate::{
    InstanceId, InstanceRecord, InstanceSpec, Intent, MemoryOrigin, Name, PhaseClock, State,
    UnixMillis,
};

/// The record of a new fork: image, env, tags, sizes and policies are the source's;
/// template mark, parent link, expiry, exit info, phases, address and published ports are not. `parent` is the
/// template whose memory it shares, if any.
#[must_use]
pub fn inherit(
    source: &InstanceRecord,
    id: InstanceId,
    name: Name,
    parent: Option<InstanceId>,
    memory: MemoryOrigin,
    now: UnixMillis,
) -> InstanceRecord {
    InstanceRecord {
        id,
        name,
        spec: InstanceSpec {
            network: source.spec.network.inherited(),
            ..source.spec.clone()
        },
        parent,
        template: false,
        promoting: false,
        standby: None,
        base: None,
        memory,
        lease: None,
        intent: Some(Intent::BecomeFork),
        exit: None,
        created_at: now,
        started_at: None,
        stopped_at: None,
        expires_at: None,
        phases: PhaseClock::new(State::Stopped, now),
    }
}
