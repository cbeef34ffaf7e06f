//! Bounds of ingress: how long and how much.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds that keep slow, greedy or lost clients and guests from taking the edge with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Client connections at once, over all ports of ingress and forwards.
    pub connections: usize,
    /// Bytes of a request's line and headers together; more is 431.
    pub header_bytes: usize,
    /// Headers of a request.
    pub headers: usize,
    /// For a TLS handshake, for the headers of a request, and between two requests of a connection.
    pub header_ms: u64,
    /// For a connection to a guest.
    pub connect_ms: u64,
    /// From the end of a request to the first byte of the guest's answer; then 504.
    pub response_ms: u64,
    /// Without a byte in either direction, for bodies and upgraded connections.
    pub idle_ms: u64,
    /// A client that takes nothing of what is ready for it is cut off.
    pub stalled_write_ms: u64,
    /// Open connections of a listener that is removed, and all of them when the edge ends.
    pub drain_ms: u64,
    /// A request that waits for an instance to wake.
    pub wake_ms: u64,
    /// Requests that wait for instances to wake, at once.
    pub held_requests: usize,
    /// Idle connections kept for each port of each guest. Each thread of ingress has its part of them, one at least.
    pub idle_guest_connections: usize,
    /// How often the files of certificates are looked at.
    pub certificate_poll_ms: u64,
    /// The access log is rotated at this size; three old ones are kept.
    pub access_log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            header_bytes: 64 << 10,
            headers: 100,
            header_ms: 30_000,
            connect_ms: 5_000,
            response_ms: 120_000,
            idle_ms: 15 * 60_000,
            stalled_write_ms: 60_000,
            drain_ms: 30_000,
            wake_ms: 30_000,
            held_requests: 512,
            idle_guest_connections: 64,
            certificate_poll_ms: 10_000,
            access_log_bytes: 32 << 20,
        }
    }
}

macro_rules! durations {
    ($($(#[$doc:meta])* $name:ident = $field:ident;)*) => {
        impl Limits {
            $($(#[$doc])* #[must_use] pub fn $name(&self) -> Duration { Duration::from_millis(self.$field) })*
        }
    };
}

durations! {
    /// [`Self::header_ms`]
    header = header_ms;
    /// [`Self::connect_ms`]
    connect = connect_ms;
    /// [`Self::response_ms`]
    response = response_ms;
    /// [`Self::idle_ms`]
    idle = idle_ms;
    /// [`Self::stalled_write_ms`]
    stalled_write = stalled_write_ms;
    /// [`Self::drain_ms`]
    drain = drain_ms;
    /// [`Self::wake_ms`]
    wake = wake_ms;
    /// [`Self::certificate_poll_ms`]
    certificate_poll = certificate_poll_ms;
}
