//! Health, capabilities, metrics.

use std::sync::Arc;

use api::capabilities::{
    Capabilities, DefaultRuntime, Host, ImageCaps, MemoryCaps, NetworkCaps, Runtime, Server,
};
use api::health::Health;
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use hypervisor::Driver;

use super::App;
use super::error::ApiError;
use crate::instances::{Listed, Networking};

/// Whether the server is up.
#[utoipa::path(get, path = "/health", operation_id = "getHealth", tag = "server", security(()), responses((status = 200, body = Health)))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health::ok())
}

/// What this server and host can do.
#[utoipa::path(get, path = "/capabilities", operation_id = "getCapabilities", tag = "server", responses((status = 200, body = Capabilities)))]
pub(crate) async fn capabilities(State(app): State<App>) -> Json<Capabilities> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let runtimes: Vec<Runtime> = app
        .instances
        .drivers()
        .all()
        .map(|(name, driver)| runtime(&app, name, driver))
        .collect();
    let default = app.instances.drivers().default_name();
    Json(Capabilities {
        server: Server {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            api_version: api::openapi::API_VERSION.to_owned(),
        },
        host: Host {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        },
        default_runtime: DefaultRuntime {
            name: default.to_owned(),
            available: runtimes
                .iter()
                .any(|runtime| runtime.name == default && runtime.available),
        },
        runtimes,
        network: network_caps(&app),
        memory: memory_caps(&app),
        images: ImageCaps {
            platforms: words(&["linux/amd64"]),
            default_platform: "linux/amd64".to_owned(),
        },
        features: words(&[
            "exec",
            "fan-out",
            "images",
            "instances",
            "logs",
            "share-memory",
            "templates",
        ]),
    })
}

/// What one VMM can do; nothing, if it does not run here.
fn runtime(app: &App, name: &str, driver: Result<&Arc<dyn Driver>, &str>) -> Runtime {
    let powers = driver.map(|driver| driver.powers());
    let mut features = vec!["pause"];
    if powers.is_ok_and(|powers| powers.snapshots) {
        features.extend(["fork", "snapshots", "standby"]);
    }
    features.sort_unstable();
    let why = match powers {
        Ok(powers) if app.instances.has_kernel(powers.kernel) => None,
        Ok(_) => Some("no guest kernel for it is installed; run: coppice setup".to_owned()),
        Err(why) => Some(why.to_owned()),
    };
    Runtime {
        name: name.to_owned(),
        available: why.is_none(),
        unavailable_reason: why,
        features: features.into_iter().map(str::to_owned).collect(),
    }
}

fn memory_caps(app: &App) -> MemoryCaps {
    let mut drivers = app.instances.drivers().all();
    let can_page = drivers.any(|(_, driver)| driver.is_ok_and(|driver| driver.powers().pager));
    let lack = match app.instances.pagers().unusable() {
        Some(why) => Some(why.to_owned()),
        None if can_page => None,
        None => Some("no VMM that can is here; firecracker can".to_owned()),
    };
    let mut backends = vec!["file".to_owned()];
    if lack.is_none() {
        backends.push("uffd".to_owned());
    }
    MemoryCaps {
        backends,
        uffd_unavailable_reason: lack,
    }
}

fn network_caps(app: &App) -> NetworkCaps {
    match app.instances.network() {
        Networking::Ready(network) => NetworkCaps {
            model: "nat".to_owned(),
            // Members of a group do; the default is no.
            guest_to_guest: false,
            gateway: Some(network::guest::GATEWAY.to_string()),
            subnet: Some(network.pool().block().to_string()),
            unavailable_reason: None,
        },
        Networking::Missing(why) => NetworkCaps {
            model: "none".to_owned(),
            guest_to_guest: false,
            gateway: None,
            subnet: None,
            unavailable_reason: Some(why.clone()),
        },
    }
}

/// Metrics in the Prometheus text format.
pub(crate) async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let listed = app.instances.list().await?;
    crate::metrics::instances(|state| {
        let known = |listed: &&Listed| match listed {
            Listed::Known(view) => view.published.state == state,
            Listed::Unreadable { .. } => state == model::State::Unknown,
        };
        listed.iter().filter(known).count() as u64
    });
    if let Networking::Ready(network) = app.instances.network() {
        crate::metrics::slots(network.usage());
    }
    let pagers = app.instances.pagers().totals().await;
    crate::metrics::pagers(&pagers);
    let mut text = app.metrics.render();
    text.push_str(&crate::metrics::fault_seconds(&pagers.sum.0.latency));
    if let Some(ingresses) = &app.ingresses {
        text.push_str(&ingresses.metrics().await);
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
