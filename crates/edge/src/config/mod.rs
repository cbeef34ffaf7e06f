//! The one document that says everything the edge does.

mod auth;
mod check;
mod domain;
mod hostname;
mod limits;
mod rejected;
mod rule;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use auth::{HeaderAuth, HeaderAuthError};
pub(crate) use check::check;
pub use domain::DomainPattern;
pub use hostname::{HostPattern, Hostname, HostnameError};
pub use limits::Limits;
pub use rejected::Rejected;
pub use rule::{InstanceRef, InstanceRefError, Rule, Target};

/// The version of the document that this build writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// Name of the zone of instances if nothing else is said.
pub const DEFAULT_ZONE: &str = "coppice.internal";

/// Everything the edge does, apart from where instances are (see
/// [`DirectoryUpdate`](crate::DirectoryUpdate)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`FORMAT_VERSION`].
    pub format: u32,
    /// The daemon's number for this document, told back in [`Applied`] and [`Status`](crate::Status).
    pub revision: u64,
    /// HTTP and HTTPS by host name.
    #[serde(default)]
    pub ingress: Ingress,
    /// Names.
    #[serde(default)]
    pub dns: Dns,
    /// Ports of the host that lead to ports of instances.
    #[serde(default)]
    pub forwards: Vec<Forward>,
    /// How the daemon is asked to wake an instance; without it nothing is woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<WakeVia>,
}

impl Config {
    /// A document that asks for nothing.
    #[must_use]
    pub fn empty(revision: u64) -> Self {
        Self {
            format: FORMAT_VERSION,
            revision,
            ingress: Ingress::default(),
            dns: Dns::default(),
            forwards: Vec::new(),
            wake: None,
        }
    }
}

/// HTTP and HTTPS by host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ingress {
    /// Addresses of the host that every port is opened on.
    pub bind: Vec<IpAddr>,
    /// Where `redirect_http` listens; 80 unless there is a reason.
    pub http_port: u16,
    /// Which requests go where.
    pub rules: Vec<Rule>,
    /// For the rules with TLS. The names they cover are read from them.
    pub certificates: Vec<Certificate>,
    /// Bounds.
    pub limits: Limits,
}

impl Default for Ingress {
    fn default() -> Self {
        Self {
            bind: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            http_port: 80,
            rules: Vec::new(),
            certificates: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// What errors and logs call it.
    pub name: String,
    /// Where it is.
    pub source: CertificateSource,
}

/// Where a certificate is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateSource {
    /// PEM files, read again when they change.
    Files {
        /// The certificate, then the intermediate ones.
        chain: PathBuf,
        /// The private key, unencrypted.
        key: PathBuf,
    },
    /// PEM texts.
    Inline {
        /// The certificate, then the intermediate ones.
        chain_pem: String,
        /// The private key, unencrypted.
        key_pem: String,
    },
}

impl std::fmt::Debug for CertificateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Files { chain, .. } => write!(f, "Files({})", chain.display()),
            Self::Inline { .. } => f.write_str("Inline(…)"),
        }
    }
}

/// Names: those of instances, and for guests also those of the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dns {
    /// The zone of instances; `web` is also `web.<zone>`.
    pub zone: String,
    /// Where queries are answered, each by UDP and TCP.
    pub listeners: Vec<DnsListener>,
    /// Resolvers for names outside the zone; empty for those of the host's `/etc/resolv.conf`.
    pub upstreams: Vec<SocketAddr>,
    /// For one answer of one upstream.
    pub upstream_ms: u64,
    /// Queries by datagram at once on a listener, an eighth of them of one client; more are dropped.
    pub queries: usize,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            zone: DEFAULT_ZONE.to_owned(),
            listeners: Vec::new(),
            upstreams: Vec::new(),
            upstream_ms: 2_000,
            queries: 1024,
        }
    }
}

/// Where queries are answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DnsListener {
    /// UDP and TCP. The address may be added to the host later.
    pub address: SocketAddr,
    /// Whose queries.
    pub audience: Audience,
}

/// Whose queries come to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Programs of the host: all instances, nothing else.
    Host,
    /// As [`Self::Host`], and names outside the zone are forwarded.
    HostRecursive,
    /// Guests, told apart by their outside address: their group, and what their egress allows.
    Guests,
}

/// A transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port of the host that leads to a port of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// What errors, logs and metrics call it.
    pub id: String,
    /// The transport.
    pub protocol: Protocol,
    /// Where the edge listens, `127.0.0.1:8080` for example.
    pub listen: SocketAddr,
    /// Where to; the instance is literal.
    pub target: Target,
}

/// How the daemon is asked to wake an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WakeVia {
    /// The daemon's unix socket.
    pub socket: PathBuf,
    /// Path of the `POST`, with `{id}` for the instance: `/instances/{id}/restore`.
    pub path: String,
}

/// A document is live: every port is bound and every certificate parsed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Of the document.
    pub revision: u64,
    /// Every socket that listens now.
    pub listeners: Vec<Listening>,
}

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listening {
    /// The transport.
    pub protocol: Protocol,
    /// Where.
    pub address: SocketAddr,
    /// What for: `ingress`, `dns` or `forward`.
    pub purpose: String,
}
