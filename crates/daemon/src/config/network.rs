//! How instances are connected.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use network::Pool;
use serde::Deserialize;

use super::Given;

/// Slots are made in some ten milliseconds: enough for a fan-out of this size at once.
const DEFAULT_SLOTS: usize = 32;
/// Each costs a namespace, which a host has some hundred kilobytes for.
const MAX_SLOTS: usize = 1024;
/// The port of DNS.
const DNS_PORT: u16 = 53;

/// Whether instances are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Where the host can.
    Auto,
    /// No instance is.
    Off,
}

/// The part of the configuration about networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Whether there are any.
    pub mode: NetworkMode,
    /// Addresses of instances; none = what is free.
    pub pool: Option<Pool>,
    /// Slots that are kept prepared.
    pub slots: usize,
    /// Addresses that ingress listens on.
    pub ingress_bind: Vec<IpAddr>,
    /// Port of plain HTTP.
    pub ingress_http_port: u16,
    /// Directory of certificates.
    pub certificates: PathBuf,
    /// Domain of instances' names.
    pub zone: String,
    /// Resolvers for other names; empty = the host's.
    pub upstreams: Vec<SocketAddr>,
}

impl NetworkConfig {
    pub(super) fn of(given: &Given, data_dir: &Path) -> Result<Self> {
        let pool = given.network_pool.as_deref().map(str::parse).transpose();
        let slots = given.network_slots.unwrap_or(DEFAULT_SLOTS);
        if slots > MAX_SLOTS {
            bail!("network_slots is {slots}; at most {MAX_SLOTS} are kept prepared");
        }
        let bind = given.ingress_bind.as_deref().map(|text| {
            let addresses = text.split(',').map(|word| {
                let word = word.trim();
                word.parse()
                    .with_context(|| format!("ingress_bind {word:?} is no address"))
            });
            addresses.collect()
        });
        let upstreams = given.dns_upstreams.as_deref().unwrap_or_default();
        let upstreams = upstreams
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let zone = given
            .dns_zone
            .clone()
            .unwrap_or_else(|| edge::DEFAULT_ZONE.to_owned());
        zone.parse::<edge::Hostname>()
            .with_context(|| format!("dns_zone {zone:?}"))?;
        Ok(Self {
            mode: given.network.unwrap_or(NetworkMode::Auto),
            pool: pool.context("network_pool")?,
            slots,
            ingress_bind: bind.unwrap_or_else(|| Ok(vec![Ipv4Addr::UNSPECIFIED.into()]))?,
            ingress_http_port: given.ingress_http_port.unwrap_or(80),
            certificates: given
                .certificates
                .clone()
                .unwrap_or_else(|| data_dir.join("certificates")),
            zone,
            upstreams: upstreams.map(resolver).collect::<Result<_>>()?,
        })
    }
}

fn resolver(text: &str) -> Result<SocketAddr> {
    let alone = text
        .parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, DNS_PORT));
    alone
        .or_else(|_| text.parse())
        .with_context(|| format!("dns_upstreams {text:?} is neither ADDRESS nor ADDRESS:PORT"))
}
