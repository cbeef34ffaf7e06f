//! `GET /capabilities`: what this server and host can do.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a client may ask of this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Capabilities {
    /// Which server this is.
    pub server: Server,
    /// The machine it runs on.
    pub host: Host,
    /// The runtime used when a request names none.
    pub default_runtime: DefaultRuntime,
    /// All known runtimes, sorted by name.
    pub runtimes: Vec<Runtime>,
    /// What networking instances get.
    pub network: NetworkCaps,
    /// What the memory of forks can come from.
    #[serde(default)]
    pub memory: MemoryCaps,
    /// Which images can be run.
    pub images: ImageCaps,
    /// Groups of endpoints and extensions present, such as `templates`.
    pub features: Vec<String>,
}

/// The server's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Server {
    /// Short revision of the build, or `unknown`.
    pub version: String,
    /// `info.version` of the OpenAPI document.
    pub api_version: String,
}

/// The host's platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture in OCI words, such as `amd64`.
    pub arch: String,
}

/// The runtime used by default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DefaultRuntime {
    /// Name as in `Instance.hypervisor`.
    pub name: String,
    /// Whether it can be launched on this host.
    pub available: bool,
}

/// One VMM that the server knows how to drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Runtime {
    /// Name as in `Instance.hypervisor`.
    pub name: String,
    /// Whether it can be launched on this host.
    pub available: bool,
    /// Why it cannot, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_reason: Option<String>,
    /// What it can do, such as `standby` or `fork`.
    pub features: Vec<String>,
}

/// How instances are connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkCaps {
    /// `bridge`, `nat`, or `none` on a server without instance networking.
    pub model: String,
    /// Whether instances can reach each other.
    pub guest_to_guest: bool,
    /// Address of the host as seen by instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Addresses that instances get, in CIDR form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// Why there is none, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable_reason: Option<String>,
}

/// What the memory of forks can come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryCaps {
    /// Values of `memory_backend` that can be had: `file` always, `uffd` where a runtime and the host can.
    pub backends: Vec<String>,
    /// Why `uffd` cannot be had, and what to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uffd_unavailable_reason: Option<String>,
}

/// Platforms of runnable images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageCaps {
    /// `os/arch[/variant]` values that can be run.
    pub platforms: Vec<String>,
    /// The one used when a request names none.
    pub default_platform: String,
}
