//! How an instance is connected: what is asked for, and what it has.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The network part of a request. What is absent stays: on create as by default, on fork as the
/// source has it, on patch as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Whether it has a network device. On create; by default true where the server has networks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Most that it receives, such as `100Mbps` or `12.5MB/s`; empty for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples("100Mbps"))]
    pub bandwidth_download: Option<String>,
    /// Most that it sends; empty for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_upload: Option<String>,
    /// What it reaches outside the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<EgressRequest>,
    /// Blocks of private addresses that it reaches, in CIDR form. An extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(examples(json!(["10.20.0.0/16"])))]
    pub allow: Option<Vec<String>>,
    /// Ports of the host that lead to it. An extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<PublishedPort>>,
}

/// What an instance may reach outside the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressRequest {
    /// Mediation by an intercepting proxy; not available, so only `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What mediation would enforce; of no effect without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<EgressEnforcement>,
    /// How far it reaches. An extension of coppice, as are the fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<EgressMode>,
    /// Blocks on the allow-list, in CIDR form.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// Names on the allow-list: `example.com` itself, `*.example.com` what is below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}

/// What mediation would enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EgressEnforcement {
    /// `all` or `http_https_only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// How far an instance reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EgressMode {
    /// Everything but private networks.
    #[default]
    Open,
    /// Nothing.
    None,
    /// Only `cidrs` and `domains`.
    AllowList,
}

/// A port of the host that leads to a port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// Address of the host; all of them when absent, loopback included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<String>,
    /// Port of the host.
    #[schema(minimum = 1)]
    pub host_port: u16,
    /// Port of the instance.
    #[schema(minimum = 1)]
    pub port: u16,
    /// Transport; `tcp` by default.
    #[serde(default)]
    pub protocol: Transport,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Streams.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// An instance's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceNetwork {
    /// Whether it has a network device.
    pub enabled: bool,
    /// `default`, when it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Address under which it is reached; null without network or while it has no VMM.
    pub ip: Option<String>,
    /// Hardware address that the guest sees, the same for all; null without network.
    pub mac: Option<String>,
    /// Most that it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_download: Option<String>,
    /// Most that it sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_upload: Option<String>,
    /// What it reaches outside the host. An extension of coppice, as are the fields below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<InstanceEgress>,
    /// Blocks of private addresses that it reaches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<PublishedPort>,
}

/// What an instance reaches outside the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceEgress {
    /// How far.
    pub mode: EgressMode,
    /// Blocks on the allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cidrs: Vec<String>,
    /// Names on the allow-list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
}
