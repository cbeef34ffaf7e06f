//! The network part of requests and answers.

use std::net::Ipv4Addr;

use api::error::codes;
use api::instances::{
    EgressMode, EgressRequest, InstanceEgress, InstanceNetwork, NetworkRequest, PublishedPort,
    Transport,
};
use model::network::{BadPolicy, Egress, Policy, Protocol, Publish};
use model::{NetworkLease, NetworkSpec, PolicyPatch, Rate};

use super::super::error::ApiError;

/// Name of the one network there is, as the public contract has it.
const NETWORK: &str = "default";

/// The network of a new instance. It has one unless the request or the host says no.
pub(crate) fn of_create(
    request: Option<NetworkRequest>,
    available: Result<(), &str>,
) -> Result<NetworkSpec, ApiError> {
    let request = request.unwrap_or_default();
    let enabled = match (request.enabled, available) {
        (Some(true), Err(why)) => {
            return Err(ApiError::dependency(format!(
                "{why}; leave network out for an instance without"
            )));
        }
        (wanted, available) => wanted.unwrap_or(available.is_ok()),
    };
    let asks_for_more = NetworkRequest {
        enabled: None,
        ..request.clone()
    } != NetworkRequest::default();
    let mediation = request.egress.as_ref().and_then(|egress| egress.enabled);
    if !enabled && asks_for_more && mediation != Some(false) {
        let why = available.err().unwrap_or("network.enabled is false");
        return Err(invalid(format!(
            "the instance has no network ({why}), so nothing can be said about it"
        )));
    }
    let policy = changes(&request)?.applied_to(&Policy::default());
    Ok(NetworkSpec { enabled, policy })
}

/// The changes that a fork or a patch asks for.
pub(crate) fn patch(request: Option<NetworkRequest>) -> Result<PolicyPatch, ApiError> {
    let request = request.unwrap_or_default();
    if request.enabled.is_some() {
        return Err(invalid(
            "network.enabled is decided when an instance is created; leave it out",
        ));
    }
    changes(&request)
}

fn changes(request: &NetworkRequest) -> Result<PolicyPatch, ApiError> {
    let egress = request.egress.as_ref().map(egress).transpose()?.flatten();
    let allow = request
        .allow
        .as_ref()
        .map(|list| blocks("network.allow", list));
    let publish = request.publish.as_ref().map(|ports| {
        let ports = ports.iter().map(port);
        ports.collect::<Result<Vec<_>, _>>()
    });
    let patch = PolicyPatch {
        upload: limit(
            request.bandwidth_upload.as_deref(),
            ("bandwidth_upload", codes::INVALID_BANDWIDTH_UPLOAD),
        )?,
        download: limit(
            request.bandwidth_download.as_deref(),
            ("bandwidth_download", codes::INVALID_BANDWIDTH_DOWNLOAD),
        )?,
        egress,
        allow: allow.transpose()?,
        publish: publish.transpose()?,
    };
    patch
        .applied_to(&Policy::default())
        .validate()
        .map_err(|error| invalid(error.to_string()))?;
    Ok(patch)
}

fn limit(
    text: Option<&str>,
    (field, code): (&str, &'static str),
) -> Result<Option<Option<u64>>, ApiError> {
    match text {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(text) => {
            let wrong = |why: String| ApiError::invalid(code, format!("{field} {text:?}: {why}"));
            let rate: Rate = text.parse().map_err(|error| wrong(format!("{error}")))?;
            if rate.0 < Policy::MIN_RATE {
                return Err(wrong(BadPolicy::Rate(rate.0).to_string()));
            }
            Ok(Some(Some(rate.0)))
        }
    }
}

fn egress(request: &EgressRequest) -> Result<Option<Egress>, ApiError> {
    if request.enabled == Some(true) {
        return Err(invalid(
            "network.egress.enabled: this server has no mediating proxy; use egress.mode with allow-list",
        ));
    }
    let listed = !request.cidrs.is_empty() || !request.domains.is_empty();
    match request.mode {
        Some(EgressMode::AllowList) => Ok(Some(Egress::AllowList {
            cidrs: blocks("network.egress.cidrs", &request.cidrs)?,
            domains: request.domains.clone(),
        })),
        _ if listed => Err(invalid(
            "network.egress: cidrs and domains go with mode allow-list",
        )),
        Some(EgressMode::Open) => Ok(Some(Egress::Open)),
        Some(EgressMode::None) => Ok(Some(Egress::None)),
        None => Ok(None),
    }
}

fn blocks(field: &str, list: &[String]) -> Result<Vec<ipnet::Ipv4Net>, ApiError> {
    let parsed = list.iter().map(|text| {
        let alone = text.parse::<Ipv4Addr>().ok().map(ipnet::Ipv4Net::from);
        alone.or_else(|| text.parse().ok()).ok_or_else(|| {
            invalid(format!(
                "{field} {text:?} is no block of IPv4 addresses such as 10.20.0.0/16"
            ))
        })
    });
    parsed.collect()
}

fn port(port: &PublishedPort) -> Result<Publish, ApiError> {
    let host_ip = port.host_ip.as_deref().map(|text| {
        text.parse::<Ipv4Addr>().map_err(|_| {
            invalid(format!(
                "network.publish: host_ip {text:?} is no IPv4 address"
            ))
        })
    });
    Ok(Publish {
        protocol: match port.protocol {
            Transport::Tcp => Protocol::Tcp,
            Transport::Udp => Protocol::Udp,
        },
        // Every address is said by leaving it out.
        host_ip: host_ip.transpose()?.filter(|ip| !ip.is_unspecified()),
        host_port: port.host_port,
        guest_port: port.port,
    })
}

fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::invalid(codes::INVALID_REQUEST, message)
}

/// As the wire shows it.
pub(crate) fn view(spec: &NetworkSpec, lease: Option<NetworkLease>) -> InstanceNetwork {
    if !spec.enabled {
        return InstanceNetwork::default();
    }
    let Policy {
        group: _,
        egress,
        allow,
        bandwidth,
        publish,
    } = &spec.policy;
    let rate = |limit: Option<u64>| limit.map(|bits| Rate(bits).to_string());
    InstanceNetwork {
        enabled: true,
        name: Some(NETWORK.to_owned()),
        ip: lease.map(|lease| lease.address.to_string()),
        mac: Some(network::guest::mac()),
        bandwidth_download: rate(bandwidth.download),
        bandwidth_upload: rate(bandwidth.upload),
        egress: Some(shown_egress(egress)),
        allow: allow.iter().map(ToString::to_string).collect(),
        publish: publish.iter().map(shown_port).collect(),
    }
}

fn shown_egress(egress: &Egress) -> InstanceEgress {
    match egress {
        Egress::Open => InstanceEgress::default(),
        Egress::None => InstanceEgress {
            mode: EgressMode::None,
            ..InstanceEgress::default()
        },
        Egress::AllowList { cidrs, domains } => InstanceEgress {
            mode: EgressMode::AllowList,
            cidrs: cidrs.iter().map(ToString::to_string).collect(),
            domains: domains.clone(),
        },
    }
}

fn shown_port(port: &Publish) -> PublishedPort {
    PublishedPort {
        host_ip: port.host_ip.map(|ip| ip.to_string()),
        host_port: port.host_port,
        port: port.guest_port,
        protocol: match port.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
        },
    }
}
