//! The live edge: what is configured, what is open, and how the one follows the other.
//!
//! [`Edge`] is shared by every task. Documents change under the lock of the sockets, one at a time:
//! check, read certificates, open ports, keep on disk, switch, retire. Whoever serves a request
//! takes the [`Live`] of that moment.

mod endpoint;
mod lanes;
mod serve;
mod shared;
mod sockets;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::access_log::AccessLog;
use crate::config::{Applied, Config, Rejected, check};
use crate::control::{CertificateState, Status};
use crate::directory::{Directory, DirectoryUpdate, OutOfSequence, Snapshot};
use crate::dns::{Reporter, Upstreams};
use crate::ingress::{Certificates, Pool, Routes, TlsSettings, Wakes};
use crate::keep::{self, Sync};
use crate::metrics::Metrics;
use crate::process::{Lock, Place};
use crate::run::RunOptions;

pub(crate) use lanes::Lane;
use lanes::Lanes;
pub(crate) use serve::Lifetime;
pub(crate) use shared::Shared;
use sockets::Sockets;

/// A document, ready to be looked things up in.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) config: Config,
    pub(crate) routes: Routes,
    pub(crate) upstreams: Upstreams,
}

impl Live {
    fn new(config: Config) -> Self {
        Self {
            routes: Routes::new(&config.ingress),
            upstreams: Upstreams::new(&config.dns),
            config,
        }
    }
}

/// What every task of the process shares.
#[derive(Debug)]
pub(crate) struct Edge {
    place: Place,
    build: String,
    lock: Mutex<Option<Lock>>,
    live: Shared<Live>,
    /// Whether a document was applied or loaded.
    configured: Mutex<bool>,
    certificates: Arc<Shared<Certificates>>,
    tls: TlsSettings,
    sockets: AsyncMutex<Sockets>,
    listening: Shared<(Vec<crate::config::Listening>, Vec<Rejected>)>,
    directory: Directory,
    /// What is on disk.
    directory_kept: Mutex<Option<Arc<Snapshot>>>,
    metrics: Metrics,
    log: AccessLog,
    lanes: Lanes,
    pool: Pool,
    wakes: Wakes,
    reporter: Reporter,
}

impl Edge {
    pub(crate) fn new(options: &RunOptions, lock: Lock) -> io::Result<Arc<Self>> {
        let certificates = Arc::new(Shared::new(Certificates::default()));
        Ok(Arc::new(Self {
            place: options.place.clone(),
            build: options.build.clone(),
            lock: Mutex::new(Some(lock)),
            live: Shared::new(Live::new(Config::empty(0))),
            configured: Mutex::new(false),
            tls: TlsSettings::new(Arc::clone(&certificates)),
            certificates,
            sockets: AsyncMutex::default(),
            listening: Shared::default(),
            directory: Directory::new(),
            directory_kept: Mutex::new(None),
            metrics: Metrics::default(),
            log: AccessLog::open(&options.place.access_log())?,
            lanes: Lanes::start(options.ingress_threads)?,
            pool: Pool::default(),
            wakes: Wakes::default(),
            reporter: Reporter::default(),
        }))
    }

    pub(crate) fn build(&self) -> &str {
        &self.build
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.get()
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn instances(&self) -> Arc<Snapshot> {
        self.directory.snapshot()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(crate) fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    pub(crate) fn log(&self) -> &AccessLog {
        &self.log
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    pub(crate) fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    pub(crate) fn certificates(&self) -> Arc<Certificates> {
        self.certificates.get()
    }

    pub(crate) fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Makes a document live, or changes nothing.
    pub(crate) async fn apply(self: &Arc<Self>, config: Config) -> Result<Applied, Rejected> {
        let mut sockets = self.sockets.lock().await;
        check(&config)?;
        let wanted = endpoint::wanted(&config)?;
        let certificates = Certificates::load(&config.ingress.certificates)?;
        certificates.cover(&config.ingress.rules)?;
        let prepared = sockets.prepare(&wanted, self).await?;
        if let Err(error) = self.keep_config(&config).await {
            sockets.abandon(prepared, self);
            return Err(Rejected::NotKept {
                reason: error.to_string(),
            });
        }
        let revision = config.revision;
        self.log.set_limit(config.ingress.limits.access_log_bytes);
        self.certificates.set(certificates);
        self.live.set(Live::new(config));
        self.set_configured();
        sockets.commit(prepared, &wanted, self);
        self.publish(&sockets);
        tracing::info!(
            revision,
            listeners = wanted.len(),
            "a configuration is live"
        );
        Ok(Applied {
            revision,
            listeners: sockets.listening(),
        })
    }

    /// Serves what the last process served, as far as that can be done.
    pub(crate) async fn restore(self: &Arc<Self>, wait_for_directory: bool) {
        match keep::read::<DirectoryUpdate>(&self.place.instances()) {
            Ok(Some(update)) if !wait_for_directory => {
                // Replacing never is out of sequence.
                let _ = self.directory.update(update);
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "the last directory of instances cannot be read"),
        }
        let config = match keep::read::<Config>(&self.place.config()) {
            Ok(Some(config)) => config,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the last configuration cannot be read");
                return;
            }
        };
        let wanted = match check(&config).and_then(|()| endpoint::wanted(&config)) {
            Ok(wanted) => wanted,
            Err(why) => {
                tracing::error!(%why, "the last configuration cannot be used");
                return;
            }
        };
        let mut sockets = self.sockets.lock().await;
        self.log.set_limit(config.ingress.limits.access_log_bytes);
        self.certificates
            .set(Certificates::load_what_can_be(&config.ingress.certificates));
        self.live.set(Live::new(config));
        self.set_configured();
        sockets.open_all(&wanted, self);
        self.publish(&sockets);
    }

    pub(crate) fn update_directory(&self, update: DirectoryUpdate) -> Result<u64, OutOfSequence> {
        self.directory.update(update)
    }

    pub(crate) async fn reload_certificates(&self) -> Vec<CertificateState> {
        // Under this lock, so that a document that is being applied is not overwritten.
        let _one_at_a_time = self.sockets.lock().await;
        let live = self.live();
        let next = self
            .certificates
            .get()
            .reload(&live.config.ingress.certificates);
        self.certificates.set(next);
        self.certificates.get().states().to_vec()
    }

    pub(crate) fn status(&self) -> Status {
        let live = self.live();
        let instances = self.instances();
        let configured = *lock(&self.configured);
        let listening = self.listening.get();
        Status {
            revision: configured.then_some(live.config.revision),
            directory_sequence: instances.sequence(),
            instances: instances.len(),
            listeners: listening.0.clone(),
            missing: listening.1.clone(),
            certificates: self.certificates.get().states().to_vec(),
            subscribed: self.reporter.is_subscribed(),
        }
    }

    /// What is due from time to time.
    pub(crate) async fn tick(self: &Arc<Self>) {
        self.pool.sweep();
        self.keep_directory();
        {
            let mut sockets = self.sockets.lock().await;
            if !sockets.missing().is_empty() {
                sockets.retry(self);
                self.publish(&sockets);
            }
        }
        if self
            .certificates
            .get()
            .is_due(self.live().config.ingress.limits.certificate_poll())
        {
            self.reload_certificates().await;
        }
    }

    /// Gives back ports, lock and socket, so that another edge can take over. Idempotent.
    pub(crate) async fn let_go(&self) {
        let mut sockets = self.sockets.lock().await;
        sockets.close_all().await;
        self.publish(&sockets);
        // While the lock is held, for afterwards the files may be another's. So they may where the
        // directory was before it was moved.
        let here = lock(&self.lock)
            .as_ref()
            .is_some_and(|lock| lock.is_of(&self.place));
        if here {
            self.keep_directory();
            let _ = std::fs::remove_file(self.place.socket());
        }
        drop(lock(&self.lock).take());
    }

    /// Waits until nothing is open.
    pub(crate) async fn finished(&self) {
        let open = || {
            let metrics = &self.metrics;
            [
                &metrics.client_connections,
                &metrics.upgraded,
                &metrics.forward_connections,
            ]
            .iter()
            .any(|gauge| gauge.count() > 0)
        };
        while open() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn close_log(&self) {
        self.log.close().await;
    }

    async fn keep_config(&self, config: &Config) -> io::Result<()> {
        let (path, config) = (self.place.config(), config.clone());
        // A disk may be busy for longer than requests should wait.
        let kept = tokio::task::spawn_blocking(move || keep::replace(&path, &config, Sync::Disk));
        kept.await.map_err(io::Error::other)?
    }

    fn keep_directory(&self) {
        let snapshot = self.instances();
        let mut kept = lock(&self.directory_kept);
        if !snapshot.is_filled()
            || kept
                .as_ref()
                .is_some_and(|kept| Arc::ptr_eq(kept, &snapshot))
        {
            return;
        }
        match keep::replace(
            &self.place.instances(),
            &snapshot.to_update(),
            Sync::Process,
        ) {
            Ok(()) => *kept = Some(snapshot),
            Err(error) => tracing::warn!(%error, "cannot keep the directory of instances"),
        }
    }

    fn set_configured(&self) {
        *lock(&self.configured) = true;
    }

    fn publish(&self, sockets: &Sockets) {
        self.listening.set((sockets.listening(), sockets.missing()));
    }
}

/// Nothing but single assignments happens under our locks, so a poisoned one is still good.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
