//! The daemon's hand on the edge: the process that serves ingress, names and published ports and
//! goes on while the daemon restarts.
//!
//! What is to be served follows from records; [`Edge`] puts the whole document together and has
//! it applied, one change at a time. `follow` keeps the edge's directory of instances in step.

mod claims;
mod document;
mod entries;
mod follow;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use edge::{Applied, ApplyError, Client, Rejected, Start, StartError};
use model::network::{Protocol, Publish};
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
    /// Another ingress has the name.
    #[error("the name {0:?} is taken by another ingress")]
    NameTaken(String),
    /// A rule's port leads to an instance.
    #[error("port {port}/tcp of the host is published for instance {instance}")]
    Published {
        /// The port.
        port: u16,
        /// The instance.
        instance: InstanceId,
    },
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

/// What the edge may not have been told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Owed {
    /// What to serve.
    document: bool,
    /// Where instances are.
    directory: bool,
}

/// The edge of this data directory.
pub struct Edge {
    start: Start,
    settings: Settings,
    network: Option<Arc<dyn Network>>,
    live: Mutex<Live>,
    /// There is an edge, or was one, that serves what is live.
    needed: watch::Sender<bool>,
    owed: watch::Sender<Owed>,
    /// Held by whoever looks for the edge: two who found none would start two.
    looking: Mutex<()>,
}

impl Edge {
    /// Finds or starts the edge and has it serve what the records say; without a network and
    /// anything to serve that waits until something is. What cannot be served now, such as a port
    /// that another program has, is tried again until it can ([`follow`]).
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
            owed: watch::Sender::default(),
            looking: Mutex::default(),
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

    /// Adds an ingress; `keep` records it once it is live, and it is taken back when it cannot be.
    pub async fn add_ingress(
        &self,
        new: IngressRecord,
        keep: impl AsyncFnOnce() -> Result<(), StoreError>,
    ) -> Result<(), EdgeError> {
        let mut live = self.live.lock().await;
        // Looked for under the lock: two may be made at once.
        if live.ingresses.iter().any(|other| other.name == new.name) {
            return Err(EdgeError::NameTaken(new.name));
        }
        // The edge listens for neither what the kernel leads elsewhere nor what would be led past it.
        if let Some(clash) = claims::clash(&self.settings, &new, &live.published) {
            return Err(EdgeError::Published {
                port: clash.port,
                instance: clash.instance.clone(),
            });
        }
        let mut after = live.ingresses.clone();
        after.push(new);
        self.change_ingresses(&mut live, after, keep).await
    }

    /// Removes an ingress, in the same way.
    pub async fn remove_ingress(
        &self,
        id: &str,
        keep: impl AsyncFnOnce() -> Result<(), StoreError>,
    ) -> Result<(), EdgeError> {
        let mut live = self.live.lock().await;
        let mut after = live.ingresses.clone();
        after.retain(|other| other.id != id);
        self.change_ingresses(&mut live, after, keep).await
    }

    async fn change_ingresses(
        &self,
        live: &mut Live,
        after: Vec<IngressRecord>,
        keep: impl AsyncFnOnce() -> Result<(), StoreError>,
    ) -> Result<(), EdgeError> {
        let before = std::mem::replace(&mut live.ingresses, after);
        let outcome = match self.serve(live).await {
            Ok(()) => keep().await.map_err(EdgeError::from),
            Err(error) => Err(error),
        };
        if outcome.is_err() {
            live.ingresses = before;
            if let Err(error) = self.serve(live).await {
                self.owe(|owed| owed.document = true);
                warn!(why = %chain(&error), "the edge may serve an ingress that is not recorded, until it is told again");
            }
        }
        outcome
    }

    /// Says again what is to be served, to an edge that was started anew or could not be told.
    async fn serve_again(&self) -> Result<(), EdgeError> {
        let mut live = self.live.lock().await;
        let served = self.serve(&mut live).await;
        if served.is_err() {
            self.owe(|owed| owed.document = true);
        }
        served
    }

    /// An edge that refuses goes on with what it has; one that did not answer is to be told again.
    async fn serve(&self, live: &mut Live) -> Result<(), EdgeError> {
        self.needed.send_replace(true);
        let served = self.tell(live).await;
        match &served {
            Ok(()) => self.owe(|owed| owed.document = false),
            Err(EdgeError::Unreachable(_)) => self.owe(|owed| owed.document = true),
            Err(_) => {}
        }
        served
    }

    async fn tell(&self, live: &mut Live) -> Result<(), EdgeError> {
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

    /// A client of the edge, which is started if there is none. One that was just started serves
    /// what was served last, and knows no instance.
    async fn client(&self) -> Result<Client, EdgeError> {
        let _one_at_a_time = self.looking.lock().await;
        let (client, found) = edge::ensure(&self.start).await?;
        if found != edge::Found::Running {
            info!(?found, "edge");
            self.owe(|owed| {
                *owed = Owed {
                    document: true,
                    directory: true,
                };
            });
        }
        Ok(client)
    }

    fn owe(&self, change: impl FnOnce(&mut Owed)) {
        self.owed.send_if_modified(|owed| {
            let before = *owed;
            change(owed);
            *owed != before
        });
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
                protocol: protocol(listening.protocol),
                port: listening.address.port(),
            })
            .collect();
        if let Err(error) = network.set_services(&services).await {
            warn!(why = %chain(&error), "guests cannot reach ports of ingress");
        }
    }
}

fn protocol(of_edge: edge::Protocol) -> Protocol {
    match of_edge {
        edge::Protocol::Tcp => Protocol::Tcp,
        edge::Protocol::Udp => Protocol::Udp,
    }
}

#[async_trait]
impl HostPorts for Edge {
    async fn claimant(&self, port: &Publish) -> Option<String> {
        claims::claimant(&self.settings, &self.live.lock().await.ingresses, port)
    }

    async fn open(&self, id: &InstanceId, ports: &[Publish]) -> Result<(), OpError> {
        let mut live = self.live.lock().await;
        if live.published.get(id).is_some_and(|before| before == ports) {
            return Ok(());
        }
        for port in ports {
            // It may have come since the caller looked.
            if let Some(by) = claims::claimant(&self.settings, &live.ingresses, port) {
                return Err(OpError::PortInUse {
                    port: port.host_port,
                    protocol: port.protocol,
                    by,
                });
            }
        }
        let before = live.published.insert(id.clone(), ports.to_vec());
        let Err(error) = self.serve(&mut live).await else {
            return Ok(());
        };
        match before {
            Some(before) => live.published.insert(id.clone(), before),
            None => live.published.remove(id),
        };
        Err(match error {
            EdgeError::Rejected(Rejected::PortInUse {
                address, protocol, ..
            }) => OpError::PortInUse {
                port: address.port(),
                protocol: self::protocol(protocol),
                by: format!("another program, on {}", address.ip()),
            },
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
            self.owe(|owed| owed.document = true);
            warn!(instance = %id, why = %chain(&error), "a published port is left until the edge can be told");
        }
    }
}
