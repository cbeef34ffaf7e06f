//! The edge: the process that stays up while the daemon restarts, and serves what clients and
//! guests must not lose meanwhile: ingress (HTTP and HTTPS by host name), names, and published
//! ports of the host.
//!
//! The daemon finds or starts it with [`ensure`] and talks to it through a [`Client`]:
//! [`Client::apply`] makes a whole [`Config`] live or changes nothing, [`Client::directory`] says
//! where instances are. The last of both are on disk, so an edge that starts by itself serves what
//! it served before.
//!
//! This crate knows no records, no VMM and no firewall. Where it needs the daemon (to wake an
//! instance, to allow the addresses of a name) it asks and fails closed.
#![forbid(unsafe_code)]

mod config;
mod control;
mod directory;
mod metrics;
mod process;

mod keep;
mod live;
mod run;

mod access_log;
mod dns;
mod forward;
mod ingress;

pub use config::{
    Applied, Audience, Certificate, CertificateSource, Config, DEFAULT_ZONE, Dns, DnsListener,
    DomainPattern, FORMAT_VERSION, Forward, HeaderAuth, HeaderAuthError, HostPattern, Hostname,
    HostnameError, Ingress, InstanceRef, InstanceRefError, Limits, Listening, Protocol, Rejected,
    Rule, Target, WakeVia,
};
pub use control::{
    ApplyError, CertificateState, Client, ClientError, DirectoryError, Hello, PROTOCOL_VERSION,
    Pending, Resolutions, Resolved, ResolvedAddress, Status,
};
pub use directory::{DirectoryUpdate, Egress, Entry, OutOfSequence};
pub use dns::ACK_DEADLINE;
pub use metrics::{Family, Kind, MetricsReport, Sample};
pub use process::{EDGE_COMMAND, Found, Place, Start, StartError, ensure, main};
pub use run::{RunError, RunOptions, run};
