//! The network as the daemon sees it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use super::inner::{Inner, lock};
use super::open;
use super::uplinks::keep_forwarding;
use crate::{
    Config, Held, Lease, Leftover, Network, NetworkError, Opened, Policy, Pool, Service, Slot,
    Traffic, Usage,
};

/// Longest wait for a slot that is being cleaned.
const CLEANING: Duration = Duration::from_secs(10);

/// Between two looks at slots that are astray.
const LOOK: Duration = Duration::from_secs(1);

/// So long after the last take or give-back a burst is over.
const CALM: Duration = Duration::from_millis(10);

/// A network on this host's kernel.
pub struct LinuxNetwork {
    inner: Arc<Inner>,
    background: [JoinHandle<()>; 2],
}

impl LinuxNetwork {
    /// Opens the network: takes what is `held`, removes every other object of the mark, and begins to prepare slots.
    /// Has to be called in a runtime.
    ///
    /// # Errors
    ///
    /// `NotReady` where the host lacks something, `PoolClash` if the addresses are in use, `MarkInUse` if another
    /// daemon has this mark.
    pub async fn open(
        config: Config,
        held: Vec<Held>,
    ) -> Result<(Arc<Self>, Opened), NetworkError> {
        let (inner, listener, opened) = blocking(move || open::open(&config, &held)).await?;
        let inner = Arc::new(inner);
        let background = [
            tokio::spawn(keep_ready(Arc::clone(&inner))),
            tokio::spawn(keep_forwarding(listener)),
        ];
        let network = Arc::new(Self { inner, background });
        Ok((network, opened))
    }

    /// Stops preparing and cleaning. Everything stays in place for the next one who opens it.
    pub async fn close(self: Arc<Self>) {
        self.background.iter().for_each(JoinHandle::abort);
        // What is running in the background ends by itself; its share of the state is the last one besides ours.
        let wait = async {
            while Arc::strong_count(&self.inner) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if timeout(CLEANING, wait).await.is_err() {
            tracing::warn!("the network is closed while something is being cleaned");
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Inner) -> Result<T, NetworkError> + Send + 'static,
    ) -> Result<T, NetworkError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || job(&inner)).await
    }

    /// Takes a slot. If the caller is gone when it is there, it is given back.
    async fn try_take(&self, owner: &str, policy: &Policy) -> Result<Option<Lease>, NetworkError> {
        let (inner, owner, policy) = (Arc::clone(&self.inner), owner.to_owned(), policy.clone());
        let (send, receive) = oneshot::channel();
        spawn_blocking(move || {
            let taken = inner.take(&owner, &policy);
            if let Err(Ok(Some(lease))) = send.send(taken)
                && let Err(error) = inner.give_back(lease.slot)
            {
                tracing::warn!(%error, slot = %lease.slot, "a slot that nobody waited for was not given back");
            }
        });
        receive.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Drop for LinuxNetwork {
    fn drop(&mut self) {
        self.background.iter().for_each(JoinHandle::abort);
    }
}

async fn keep_ready(inner: Arc<Inner>) {
    loop {
        calm(&inner).await;
        let worker = Arc::clone(&inner);
        let more = spawn_blocking(move || worker.work()).await.unwrap_or(false);
        if more {
            continue;
        }
        if inner.watches() {
            let worker = Arc::clone(&inner);
            let _ = spawn_blocking(move || worker.clear_astray()).await;
            let _ = timeout(LOOK, inner.work.notified()).await;
        } else {
            inner.work.notified().await;
        }
    }
}

/// Waits until a burst of takes is over, or has left a quarter of what is ready: making a slot holds locks of the kernel
/// that those who take one would wait for.
async fn calm(inner: &Inner) {
    let plenty = || lock(&inner.book).ready() * 4 >= inner.ready;
    while plenty() && timeout(CALM, inner.work.notified()).await.is_ok() {}
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, NetworkError> + Send + 'static,
) -> Result<T, NetworkError> {
    spawn_blocking(job).await.unwrap_or_else(|_| Err(ended()))
}

fn ended() -> NetworkError {
    NetworkError::io("finish", "a step of the network")(std::io::Error::other(
        "the daemon is ending",
    ))
}

#[async_trait]
impl Network for LinuxNetwork {
    async fn take(&self, owner: &str, policy: Policy) -> Result<Lease, NetworkError> {
        let taken = timeout(CLEANING, async {
            loop {
                let freed = self.inner.freed.notified();
                tokio::pin!(freed);
                freed.as_mut().enable();
                if let Some(lease) = self.try_take(owner, &policy).await? {
                    return Ok(lease);
                }
                freed.await;
            }
        });
        taken.await.unwrap_or_else(|_| {
            Err(NetworkError::Exhausted {
                pool: self.inner.pool.to_string(),
                capacity: self.inner.pool.capacity(),
            })
        })
    }

    async fn give_back(&self, slot: Slot) -> Result<(), NetworkError> {
        self.run(move |inner| inner.give_back(slot)).await
    }

    async fn set_policy(&self, slot: Slot, policy: Policy) -> Result<(), NetworkError> {
        self.run(move |inner| inner.set_policy(slot, policy)).await
    }

    async fn allow_resolved(
        &self,
        slot: Slot,
        addresses: &[Ipv4Addr],
        ttl: Duration,
    ) -> Result<(), NetworkError> {
        let addresses = addresses.to_vec();
        self.run(move |inner| inner.allow_resolved(slot, &addresses, ttl))
            .await
    }

    async fn set_services(&self, services: &[Service]) -> Result<(), NetworkError> {
        let services = services.to_vec();
        self.run(move |inner| lock(&inner.kernel).set_services(&services))
            .await
    }

    async fn traffic(&self, slot: Slot) -> Result<Traffic, NetworkError> {
        self.run(move |inner| {
            lock(&inner.book)
                .get(slot)
                .ok_or(NetworkError::UnknownSlot(slot))?;
            inner.plan(slot)?.traffic()
        })
        .await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, NetworkError> {
        self.run(Inner::leftovers).await
    }

    fn leases(&self) -> Vec<(String, Lease)> {
        let book = lock(&self.inner.book);
        book.used()
            .filter_map(|(slot, owner, _)| Some((owner.to_owned(), self.inner.lease(slot).ok()?)))
            .collect()
    }

    fn owner_of(&self, address: Ipv4Addr) -> Option<Held> {
        let slot = self.inner.pool.slot(address)?;
        let book = lock(&self.inner.book);
        let (owner, policy) = book.get(slot)?;
        Some(Held {
            owner: owner.to_owned(),
            slot,
            policy: policy.clone(),
        })
    }

    fn pool(&self) -> Pool {
        self.inner.pool
    }

    fn usage(&self) -> Usage {
        let book = lock(&self.inner.book);
        Usage {
            capacity: self.inner.pool.capacity(),
            in_use: book.in_use(),
            ready: book.ready(),
        }
    }
}
