//! One life of the daemon.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use axum::Router;
use daemon::http::{AppState, Limits, router};
use daemon::images::Images;
use daemon::instances::{
    BootFiles, Changes, Context, Drivers, Everybody, HostPorts, Instances, Networking, OpError,
    Pagers, Swept, held,
};
use daemon::store::Store;
use daemon::tokens::Tokens;
use hypervisor::DiskFormat;
use hypervisor::fake::FakeDriver;
use images::ImageStore;
use memory::{Loader, Verified};
use metrics_exporter_prometheus::PrometheusHandle;
use model::network::Publish;
use model::{InstanceId, UnixMillis};
use network::fake::FakeNetwork;
use tokio::runtime::{Builder, Handle, Runtime};

use super::driver::{GatedDriver, Parts};
use super::gate::Records;
use super::guests::Agents;
use super::{OVERLAYS, RAW, STARTS, World};

/// How long blocking work under way may take to end when a daemon is killed.
const LAST_BREATH: Duration = Duration::from_secs(20);

pub(crate) struct Daemon {
    runtime: Option<Runtime>,
    pub(crate) instances: Arc<Instances>,
    pub(crate) router: Router,
    pub(crate) swept: Swept,
    /// Lets everything.
    pub(crate) token: String,
    pub(crate) tokens: Tokens,
}

impl Daemon {
    /// None if the gate stopped it on its way up.
    pub(super) async fn start(world: &World) -> Option<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let context = context(world);
        let layout = world.layout.clone();
        let started = runtime.spawn(async move {
            let roots = Arc::clone(&context.images);
            let store = Arc::clone(&context.store);
            let (instances, swept) = Instances::open(context).await.unwrap();
            let images = Images::open(store, roots, now).await.unwrap();
            let tokens = Tokens::open(&layout.token_secret()).unwrap();
            let state = Arc::new(AppState {
                instances: Arc::clone(&instances),
                images,
                ingresses: None,
                tokens,
                layout,
                limits: Limits::default(),
                metrics: recorder(),
                now,
            });
            (instances, swept, router(state))
        });
        let (instances, swept, router) = tokio::select! {
            parts = started => parts.unwrap(),
            () = world.gate.stopped() => {
                end(runtime).await;
                return None;
            }
        };
        let tokens = Tokens::open(&world.layout.token_secret()).unwrap();
        let token = tokens
            .issue("test", Duration::from_secs(3600), None)
            .unwrap();
        Some(Self {
            runtime: Some(runtime),
            instances,
            router,
            swept,
            token,
            tokens,
        })
    }

    /// Where the daemon's tasks run.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.as_ref().unwrap().handle().clone()
    }

    pub(super) async fn kill(mut self) {
        end(self.runtime.take().unwrap()).await;
    }
}

async fn end(runtime: Runtime) {
    // Waiting for threads to end would block the test's own runtime.
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(LAST_BREATH))
        .await
        .unwrap();
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn context(world: &World) -> Arc<Context> {
    let verified = Verified::default();
    let loader = Arc::new(Loader::new(verified.clone()));
    let agents = Arc::new(Agents(Arc::clone(&world.machines)));
    let gated = |name: &str, disk| {
        let fake = FakeDriver::new(world.host.clone(), agents.clone(), Arc::clone(&loader));
        let fake = fake.of_kind(name, disk);
        Arc::new(GatedDriver {
            // As with the real ones, one of the two can get memory from a pager, and loses connections.
            inner: Arc::new(if name == RAW {
                fake.with_pager().that_hangs_up()
            } else {
                fake
            }),
            parts: Parts {
                gate: Arc::clone(&world.gate),
                machines: Arc::clone(&world.machines),
            },
            home: Handle::current(),
        })
    };
    let pagers = Pagers::new(Arc::new(world.pagers.clone()), &world.layout, world.paging);
    let mut drivers = Drivers::new(world.vmm)
        .with(gated(OVERLAYS, DiskFormat::Qcow2))
        .without("absent", "there is none in any test");
    drivers = if world.has_raw {
        drivers.with(gated(RAW, DiskFormat::Raw))
    } else {
        drivers.without(RAW, "it was taken away")
    };
    let hook = Arc::new(Records(Arc::clone(&world.gate)));
    let store = Store::open(&world.layout.database())
        .unwrap()
        .with_hook(hook);
    Arc::new(Context {
        store: Arc::new(store),
        images: Arc::new(ImageStore::open(&world.layout.images()).unwrap()),
        verified,
        drivers,
        layout: world.layout.clone(),
        boot: Some(BootFiles {
            kernel: world.boot_file("kernel"),
            elf_kernel: Some(world.boot_file("vmlinux")),
            initrd: world.boot_file("initrd"),
        }),
        starts: tokio::sync::Semaphore::new(STARTS),
        network: network(world),
        zone: "test.internal".to_owned(),
        ports: Arc::new(NoPorts),
        changes: Changes::default(),
        compression: world.compression,
        warm: world.warm,
        pagers,
        everybody: Everybody::default(),
        now,
    })
}

/// The edge is another process; here nothing listens on the host.
struct NoPorts;

#[async_trait]
impl HostPorts for NoPorts {
    async fn claimant(&self, _: &Publish) -> Option<String> {
        None
    }

    async fn open(&self, _: &InstanceId, _: &[Publish]) -> Result<(), OpError> {
        Ok(())
    }

    async fn close(&self, _: &InstanceId) {}
}

fn network(world: &World) -> Networking {
    let mut config =
        network::Config::new("0a1b2c3d".parse().unwrap(), world.layout.root().join("net"));
    config.pool = world.pool;
    let records = world.records.instances().unwrap();
    let records: Vec<_> = records
        .into_iter()
        .flatten()
        .map(|entry| entry.record)
        .collect();
    match FakeNetwork::open(&world.network, &config, &held(&records)) {
        Ok((network, _)) => Networking::Ready(network),
        Err(error) => Networking::Missing(error.to_string()),
    }
}

/// One recorder for the whole process: that is how the metrics crate works.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER
        .get_or_init(|| daemon::metrics::install().unwrap())
        .clone()
}

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(i64::try_from(since.as_millis()).unwrap())
}
