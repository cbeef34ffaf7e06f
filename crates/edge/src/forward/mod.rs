//! Published ports: from a port of the host to a port of an instance.

mod carry;
mod tcp;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;

use model::State;

use crate::config::Protocol;
use crate::directory::Known;
use crate::live::Edge;

pub(crate) use carry::{Ended, carry};
pub(crate) use tcp::serve_tcp;
pub(crate) use udp::serve_udp;

/// Where a port of the host leads to now, if the instance runs.
fn target(edge: &Edge, protocol: Protocol, listen: SocketAddr) -> Option<(Arc<Known>, SocketAddr)> {
    let live = edge.live();
    let mut forwards = live.config.forwards.iter();
    let forward = forwards.find(|one| one.protocol == protocol && one.listen == listen)?;
    let instances = edge.instances();
    let known = instances.find(forward.target.instance.resolve(""))?;
    let address = known
        .entry
        .address
        .filter(|_| known.entry.state == State::Running)?;
    Some((
        Arc::clone(known),
        SocketAddr::new(address, forward.target.port),
    ))
}
