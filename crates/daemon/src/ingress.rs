//! Use cases of ingresses.

use std::sync::Arc;

use model::{Name, Tags, UnixMillis};

use crate::edge::{Edge, EdgeError};
use crate::entropy;
use crate::instances::{Instances, OpError};
use crate::store::{IngressRecord, IngressRuleRecord, Store, StoreError};

/// Most rules of one ingress; more belong to several.
const MAX_RULES: usize = 100;

/// Why a request about ingresses fails.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// No such ingress.
    #[error("no such ingress")]
    NotFound,
    /// Several ids have the prefix.
    #[error("{0} ingresses have an id with this prefix; give more of it")]
    Ambiguous(usize),
    /// The name is taken.
    #[error("the name {0:?} is taken by another ingress")]
    NameTaken(String),
    /// A port of the host leads to an instance.
    #[error(
        "port {port}/tcp of the host is published for instance {instance}; use another port, or publish another one there"
    )]
    Published {
        /// The port.
        port: u16,
        /// Name of the instance.
        instance: String,
    },
    /// Too few or too many rules.
    #[error("an ingress has 1 to {MAX_RULES} rules, not {0}")]
    Rules(usize),
    /// The target of a rule.
    #[error(
        "the target {0:?} is no instance; name one that exists, or a capture such as {{instance}}"
    )]
    NoTarget(String),
    /// The edge.
    #[error(transparent)]
    Edge(#[from] EdgeError),
    /// The instances.
    #[error(transparent)]
    Instances(#[from] OpError),
}

/// All ingresses.
pub struct Ingresses {
    store: Arc<Store>,
    instances: Arc<Instances>,
    edge: Arc<Edge>,
}

impl Ingresses {
    /// Over the same records and instances as everything else.
    #[must_use]
    pub fn new(store: Arc<Store>, instances: Arc<Instances>, edge: Arc<Edge>) -> Self {
        Self {
            store,
            instances,
            edge,
        }
    }

    /// All of them, oldest first.
    pub async fn list(&self) -> Vec<IngressRecord> {
        self.edge.ingresses().await
    }

    /// Numbers of the edge in the Prometheus text format; empty while it cannot be asked.
    pub async fn metrics(&self) -> String {
        self.edge.metrics().await
    }

    /// By id, name or unique id prefix.
    pub async fn find(&self, key: &str) -> Result<IngressRecord, IngressError> {
        find(self.list().await, key)
    }

    /// Makes one; it is live when this returns.
    pub async fn create(
        &self,
        name: Name,
        mut rules: Vec<IngressRuleRecord>,
        tags: Tags,
        now: UnixMillis,
    ) -> Result<IngressRecord, IngressError> {
        if rules.is_empty() || rules.len() > MAX_RULES {
            return Err(IngressError::Rules(rules.len()));
        }
        for rule in &mut rules {
            rule.instance = self.target(&rule.instance).await?;
        }
        let record = IngressRecord {
            id: entropy::id_text(),
            name: name.to_string(),
            rules,
            tags,
            created_at: now,
        };
        let (row, new) = (record.clone(), record.clone());
        let keep = async || {
            self.store
                .run(move |store| store.insert_ingress(&row))
                .await
        };
        match self.edge.add_ingress(new, keep).await {
            Ok(()) => Ok(record),
            Err(EdgeError::NameTaken(name) | EdgeError::Store(StoreError::NameTaken(name))) => {
                Err(IngressError::NameTaken(name))
            }
            Err(EdgeError::Published { port, instance }) => {
                let view = self.instances.view(&instance).await;
                let name = view.map(|view| view.record.name.to_string());
                Err(IngressError::Published {
                    port,
                    // Without a name when it was deleted in this moment.
                    instance: name.unwrap_or_else(|_| instance.to_string()),
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes one. Connections that are open go on for a while.
    pub async fn remove(&self, key: &str) -> Result<(), IngressError> {
        let record = self.find(key).await?;
        let id = record.id.clone();
        let keep = async || self.store.run(move |store| store.remove_ingress(&id)).await;
        self.edge.remove_ingress(&record.id, keep).await?;
        Ok(())
    }

    /// A target must exist, unless a host name captures it: that one is looked for with each
    /// request. What the edge cannot look up, the beginning of an id, becomes the whole id.
    async fn target(&self, target: &str) -> Result<String, IngressError> {
        if target.starts_with('{') {
            return Ok(target.to_owned());
        }
        let id = match self.instances.find(target).await {
            Ok(id) => id,
            Err(OpError::NotFound) => return Err(IngressError::NoTarget(target.to_owned())),
            Err(error) => return Err(error.into()),
        };
        let named = self.instances.view(&id).await?.record.name.to_string() == target;
        Ok(if named {
            target.to_owned()
        } else {
            id.to_string()
        })
    }
}

fn find(all: Vec<IngressRecord>, key: &str) -> Result<IngressRecord, IngressError> {
    if let Some(exact) = all.iter().find(|one| one.id == key || one.name == key) {
        return Ok(exact.clone());
    }
    let mut fits: Vec<_> = all
        .into_iter()
        .filter(|one| !key.is_empty() && one.id.starts_with(key))
        .collect();
    match fits.len() {
        0 => Err(IngressError::NotFound),
        1 => Ok(fits.remove(0)),
        several => Err(IngressError::Ambiguous(several)),
    }
}
