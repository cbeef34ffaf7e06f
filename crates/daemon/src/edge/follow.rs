//! Keeping the edge's directory of instances in step, and answering what it asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use edge::{Client, DirectoryError, DirectoryUpdate, Entry, Pending};
use model::InstanceId;
use network::Network;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::entries::entry;
use super::{Edge, EdgeError, Owed};
use crate::instances::{Instances, Listed, OpError, chain};

/// Between two attempts to reach an edge that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// Between two looks whether the edge still serves: nothing else may need it for hours.
const LOOK: Duration = Duration::from_secs(1);

/// Between two attempts to have the edge serve what it refuses, doubled up to the longest: what is in
/// the way is somebody else's, a port for example.
const FIRST_RETELL: Duration = Duration::from_secs(1);
const LONGEST_RETELL: Duration = Duration::from_secs(30);

/// Runs for ever.
pub async fn follow(edge: Arc<Edge>, instances: Arc<Instances>) {
    // The sender is in the same edge.
    let _ = edge.needed.subscribe().wait_for(|needed| *needed).await;
    let directory = keep_in_step(Arc::clone(&edge), Arc::clone(&instances));
    let resolutions = answer_resolutions(Arc::clone(&edge));
    tokio::join!(directory, resolutions);
}

async fn keep_in_step(edge: Arc<Edge>, instances: Arc<Instances>) {
    let mut sequence = None;
    let mut retell = Retell::now();
    loop {
        let (round, changed) = if sequence.is_none() {
            // Everything is said below, whatever has changed.
            (instances.changes().take(), BTreeSet::new())
        } else {
            tokio::select! {
                changed = instances.changes().next() => changed,
                () = lost(&edge) => {
                    warn!("the edge has ended; it is started again");
                    sequence = None;
                    start_again(&edge).await;
                    continue;
                }
                owed = owes(&edge, &retell) => {
                    if owed.directory {
                        // It is new, and knows no instance.
                        sequence = None;
                    }
                    if owed.document {
                        retell = retell.after(start_again(&edge).await);
                    }
                    continue;
                }
            }
        };
        let said = match sequence {
            None => say_everything(&edge, &instances).await,
            Some(last) => say_changes(&edge, &instances, last, &changed).await,
        };
        match said {
            Ok(number) => {
                sequence = Some(number);
                instances.changes().done(round);
            }
            Err(error) => {
                warn!(why = %chain(&error), "the edge does not know where instances are");
                sequence = None;
                tokio::time::sleep(RETRY).await;
                start_again(&edge).await;
            }
        }
    }
}

/// Waits until the edge serves its socket no more.
async fn lost(edge: &Edge) {
    let client = Client::new(edge.start.place.socket());
    loop {
        tokio::time::sleep(LOOK).await;
        // One that is merely slow is left alone.
        if let Err(edge::ClientError::Io { .. }) = client.hello().await {
            return;
        }
    }
}

/// When the edge is next told what it has not taken.
struct Retell {
    at: Instant,
    pause: Duration,
}

impl Retell {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            pause: FIRST_RETELL,
        }
    }

    fn after(self, served: bool) -> Self {
        if served {
            return Self::now();
        }
        Self {
            at: Instant::now() + self.pause,
            pause: (self.pause * 2).min(LONGEST_RETELL),
        }
    }
}

/// Waits until the edge has to be told something again.
async fn owes(edge: &Edge, retell: &Retell) -> Owed {
    let mut owed = edge.owed.subscribe();
    let directory = owed.wait_for(|owed| owed.directory);
    // The sender is in the same edge.
    let document = async {
        let _ = edge.owed.subscribe().wait_for(|owed| owed.document).await;
        sleep_until(retell.at).await;
    };
    tokio::select! {
        _ = directory => Owed { directory: true, document: false },
        () = document => Owed { directory: false, document: true },
    }
}

/// An edge that died is started by this, and told what it is to serve.
async fn start_again(edge: &Edge) -> bool {
    let served = edge.serve_again().await;
    if let Err(error) = &served {
        warn!(why = %chain(error), "the edge does not serve what it should");
    }
    served.is_ok()
}

/// Why the directory could not be said.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error(transparent)]
    Edge(#[from] EdgeError),
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Instances(#[from] OpError),
}

async fn say_everything(edge: &Edge, instances: &Instances) -> Result<u64, FollowError> {
    let entries = instances
        .list()
        .await?
        .iter()
        .filter_map(|listed| match listed {
            Listed::Known(view) => Some(entry(view)),
            Listed::Unreadable { .. } => None,
        })
        .collect();
    let update = DirectoryUpdate::Replace {
        sequence: 1,
        entries,
    };
    let client = edge.client().await?;
    // Before it is told: one that is started meanwhile is owed it again.
    edge.owe(|owed| owed.directory = false);
    Ok(client.directory(update).await?)
}

async fn say_changes(
    edge: &Edge,
    instances: &Instances,
    last: u64,
    changed: &BTreeSet<InstanceId>,
) -> Result<u64, FollowError> {
    let (mut upsert, mut remove): (Vec<Entry>, Vec<InstanceId>) = (Vec::new(), Vec::new());
    for id in changed {
        match instances.view(id).await {
            Ok(view) => upsert.push(entry(&view)),
            Err(OpError::NotFound) => remove.push(id.clone()),
            Err(error) => return Err(error.into()),
        }
    }
    let update = DirectoryUpdate::Change {
        sequence: last + 1,
        upsert,
        remove,
    };
    let client = Client::new(edge.start.place.socket());
    Ok(client.directory(update).await?)
}

/// A guest with an allow-list learns an address only after the network lets it through.
async fn answer_resolutions(edge: Arc<Edge>) {
    let Some(network) = edge.network.clone() else {
        return;
    };
    loop {
        if let Err(error) = answer_until_gone(&edge, network.as_ref()).await {
            debug!(why = %chain(&error), "no resolutions");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn answer_until_gone(edge: &Edge, network: &dyn Network) -> Result<(), edge::ClientError> {
    let client = Client::new(edge.start.place.socket());
    let mut resolutions = client.subscribe().await?;
    loop {
        let pending = resolutions.next().await?;
        let accepted = allow(network, &pending).await;
        resolutions.answer(pending, accepted).await?;
    }
}

async fn allow(network: &dyn Network, pending: &Pending) -> bool {
    let std::net::IpAddr::V4(source) = pending.resolved.source else {
        return false;
    };
    let Some(held) = network.owner_of(source) else {
        return false;
    };
    if held.owner != pending.resolved.instance.as_str()
        || !held.policy.may_resolve(&pending.resolved.name)
    {
        return false;
    }
    let mut addresses = Vec::new();
    // The shortest time of all: none of them stays longer than the name says.
    let mut seconds = u32::MAX;
    for resolved in &pending.resolved.addresses {
        if let std::net::IpAddr::V4(address) = resolved.address {
            addresses.push(address);
            seconds = seconds.min(resolved.ttl_seconds);
        }
    }
    let ttl = Duration::from_secs(u64::from(seconds));
    match network.allow_resolved(held.slot, &addresses, ttl).await {
        Ok(()) => true,
        Err(error) => {
            warn!(instance = %held.owner, why = %chain(&error), "addresses of a name cannot be allowed");
            false
        }
    }
}
