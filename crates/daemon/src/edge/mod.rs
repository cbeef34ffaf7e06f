//! The daemon's hand on the edge: the process that serves ingress, names and published ports and
//! goes on while the daemon restarts.
//!
//! What is to be served follows from records; [`Edge`] puts the whole document together and has
//! it applied, one change at a time. `follow` keeps the edge's directory of instances in step.

mod document;
mod entries;
mod follow;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use edge::{Applied, ApplyError, Client, Rejected, Start, StartError};
use model::network::Publish;
use model::{InstanceId, Refusal};
use network::{Network, Service};
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};

use crate::instances::{HostPorts, OpError, chain};
use crate::store::{IngressRecord, StoreError};

pub use document::{GUEST_DNS_PORT, HOST_DNS_PORT, Settings};
pub use follow::follow;

/// Why the edge does not serve what it was to serve. What it served before it still serves.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// A rule that cannot be.
    #[error("{0}")]
    BadRule(String),
    /// The edge refuses the document.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The edge cannot be asked.
    #[error("the edge cannot be reached")]
    Unreachable(#[source] edge::ClientError),
    /// There is none, and none can be started.
    #[error("the edge cannot be started")]
    NotStarted(#[from] StartError),
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What is served now.
struct Live {
    revision: u64,
    ingresses: Vec<IngressRecord>,
    published: BTreeMap<InstanceId, Vec<Publish>>,
}

/// The edge of this data directory.
pub struct Edge {
    start: Start,
    settings: Settings,
    network: Option<Arc<dyn Network>>,
    live: Mutex<Live>,
    /// There is an edge, or was one, that serves what is live.
    needed: watch::Sender<bool>,
}

impl Edge {
    /// Finds or starts the edge and has it serve what the records say; without a network and
    /// anything to serve that waits until something is. What cannot be served now, such as a port
    /// that another program has, is tried again with the next change.
    pub async fn open(
        start: Start,
        settings: Settings,
        network: Option<Arc<dyn Network>>,
        ingresses: Vec<IngressRecord>,
        published: BTreeMap<InstanceId, Vec<Publish>>,
    ) -> Arc<Self> {
        let needed = network.is_some() || !ingresses.is_empty();
        let edge = Arc::new(Self {
            needed: watch::Sender::new(needed),
            start,
            settings,
            network,
            live: Mutex::new(Live {
                revision: 0,
                ingresses,
                published,
            }),
        });
        if needed && let Err(error) = edge.serve_again().await {
            error!(why = %chain(&error), "the edge does not serve what it should");
        }
        edge
    }

    /// All ingresses that are served.
    pub async fn ingresses(&self) -> Vec<IngressRecord> {
        self.live.lock().await.ingresses.clone()
    }

    /// Its numbers in the Prometheus text format; empty while it cannot be asked.
    pub async fn metrics(&self) -> String {
        if !*self.needed.borrow() {
            return String::new();
        }
        let client = Client::new(self.start.place.socket());
        match client.metrics().await {
            Ok(report) => report.prometheus(),
            Err(error) => {
                warn!(why = %chain(&error), "no metrics of the edge");
                String::new()
            }
        }
    }

    /// Changes the ingresses; `keep` records the change once it is live, and takes it back when
    /// it cannot be recorded.
    pub async fn change_ingresses(
        &self,
        change: impl FnOnce(&mut Vec<IngressRecord>),
        keep: impl AsyncFnOnce() -> Result<(), StoreError>,
    ) -> Result<(), EdgeError> {
        let mut live = self.live.lock().await;
        let before = live.ingresses.clone();
        change(&mut live.ingresses);
        let outcome = match self.serve(&mut live).await {
            Ok(()) => keep().await.map_err(EdgeError::from),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            live.ingresses = before;
            if let Err(error) = self.serve(&mut live).await {
                warn!(why = %chain(&error), "the edge may serve an ingress that is not recorded");
            }
        }
        outcome
    }

    /// Says again what is to be served, to an edge that was started anew.
    async fn serve_again(&self) -> Result<(), EdgeError> {
        let mut live = self.live.lock().await;
        self.serve(&mut live).await
    }

    async fn serve(&self, live: &mut Live) -> Result<(), EdgeError> {
        self.needed.send_replace(true);
        live.revision += 1;
        let certificates = document::certificates(&self.settings.certificates);
        let document = document::document(
            &self.settings,
            live.revision,
            &live.ingresses,
            &live.published,
            certificates,
        )?;
        let client = self.client().await?;
        let applied = match client.apply(document).await {
            Ok(applied) => applied,
            Err(ApplyError::Rejected(rejected)) => return Err(rejected.into()),
            Err(ApplyError::Client(error)) => return Err(EdgeError::Unreachable(error)),
        };
        self.open_to_guests(&applied).await;
        Ok(())
    }

    /// A client of the edge, which is started if there is none.
    async fn client(&self) -> Result<Client, EdgeError> {
        let (client, found) = edge::ensure(&self.start).await?;
        if found != edge::Found::Running {
            info!(?found, "edge");
        }
        Ok(client)
    }

    /// Guests may use ports of ingress, as everybody else.
    async fn open_to_guests(&self, applied: &Applied) {
        let Some(network) = &self.network else {
            return;
        };
        let loopback = |listening: &&edge::Listening| listening.address.ip().is_loopback();
        let services: Vec<Service> = applied
            .listeners
            .iter()
            .filter(|listening| !loopback(listening))
            .filter(|listening| {
                ![GUEST_DNS_PORT, HOST_DNS_PORT].contains(&listening.address.port())
            })
            .map(|listening| Service {
                protocol: match listening.protocol {
                    edge::Protocol::Tcp => model::network::Protocol::Tcp,
                    edge::Protocol::Udp => model::network::Protocol::Udp,
                },
                port: listening.address.port(),
            })
            .collect();
        if let Err(error) = network.set_services(&services).await {
            warn!(why = %chain(&error), "guests cannot reach ports of ingress");
        }
    }
}

#[async_trait]
impl HostPorts for Edge {
    async fn open(&self, id: &InstanceId, ports: &[Publish]) -> Result<(), OpError> {
        let mut live = self.live.lock().await;
        let before = live.published.insert(id.clone(), ports.to_vec());
        if before.as_deref() == Some(ports) {
            return Ok(());
        }
        let Err(error) = self.serve(&mut live).await else {
            return Ok(());
        };
        match before {
            Some(before) => live.published.insert(id.clone(), before),
            None => live.published.remove(id),
        };
        Err(match error {
            EdgeError::Rejected(Rejected::PortInUse { address, .. }) => {
                OpError::PortInUse(address.to_string())
            }
            EdgeError::Rejected(rejected @ Rejected::CannotListen { .. }) => {
                Refusal::request(rejected.to_string()).into()
            }
            other => OpError::HostNotReady(format!("ports cannot be published: {}", chain(&other))),
        })
    }

    async fn close(&self, id: &InstanceId) {
        let mut live = self.live.lock().await;
        if live.published.remove(id).is_some()
            && let Err(error) = self.serve(&mut live).await
        {
            warn!(instance = %id, why = %chain(&error), "a published port is left until the next change");
        }
    }
}
