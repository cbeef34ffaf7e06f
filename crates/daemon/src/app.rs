//! The composition root.

pub(crate) mod data_dir;
mod program;
mod vmms;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::images::ImageStore;
use anyhow::{Context as _, Result};
use boot::Assets;
use memory::{Loader, Verified};
use model::{InstanceRecord, UnixMillis};
use network::Network;
use network::linux::LinuxNetwork;
use pager::{PagerProcesses, look_for_userfaultfd};
use tracing::{info, warn};

use crate::config::{Config, NetworkConfig, NetworkMode};
use crate::edge::{Edge, GUEST_DNS_PORT, Settings};
use crate::http::{AppState, Limits, Listeners, router, serve};
use crate::images::Images;
use crate::ingress::Ingresses;
use crate::instances::{
    BootFiles, Changes, Context, Everybody, HostPorts, Instances, Layout, Networking, Pagers,
    chain, held,
};
use crate::leases::forget_lost_leases;
use crate::store::Store;
use crate::tokens::Tokens;

pub use vmms::qemu_config;
pub(crate) use vmms::{jail, kvm_for_firecracker, look_for_firecracker};

/// Shared by all daemons of the host, so that they see each other.
pub(crate) const RUN_ROOT: &str = "/run/coppice";

/// How long requests under way may take after the daemon was told to stop. Machines
/// go on running in any case.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the daemon until it is told to stop.
pub async fn run(config: Config) -> Result<()> {
    let layout = Layout::new(&config.data_dir);
    std::fs::create_dir_all(layout.instances())
        .with_context(|| format!("cannot create {}", config.data_dir.display()))?;
    data_dir::protect(&config.data_dir, config.vmm_uid)?;
    let _lock = data_dir::lock(&layout.lock(), data_dir::PATIENCE).await?;
    let metrics = crate::metrics::install()?;
    let store = Arc::new(Store::open(&layout.database()).context("cannot open the records")?);
    let roots = Arc::new(ImageStore::open(&layout.images()).context("cannot open the images")?);
    let (context, edge) = context(&config, &layout, &store, &roots).await?;
    let (instances, swept) = Instances::open(Arc::new(context))
        .await
        .context("cannot recover")?;
    if swept.directories > 0 {
        info!(
            directories = swept.directories,
            bytes = swept.bytes,
            "swept"
        );
    }
    let followed = tokio::spawn(crate::edge::follow(
        Arc::clone(&edge),
        Arc::clone(&instances),
    ));
    let ingresses = Ingresses::new(Arc::clone(&store), Arc::clone(&instances), edge);
    let images = Images::open(store, roots, now).await?;
    let listeners = Listeners::open(&config.listen, &config.socket)
        .await
        .with_context(|| {
            format!(
                "cannot listen on {} and {}",
                config.listen,
                config.socket.display()
            )
        })?;
    let tokens = Tokens::open(&layout.token_secret()).context("cannot read the token secret")?;
    let state = Arc::new(AppState {
        instances: Arc::clone(&instances),
        images,
        ingresses: Some(ingresses),
        tokens,
        layout,
        limits: Limits::default(),
        metrics: metrics.clone(),
        now,
    });
    answer(listeners, router(state), &instances, metrics).await?;
    followed.abort();
    end_warm_forks(&instances).await;
    Ok(())
}

/// What actors work with: the driver, the network and the edge of this host.
async fn context(
    config: &Config,
    layout: &Layout,
    store: &Arc<Store>,
    roots: &Arc<ImageStore>,
) -> Result<(Context, Arc<Edge>)> {
    let verified = Verified::default();
    let boot = boot_files(config, layout)
        .inspect_err(
            |error| warn!(why = %format!("{error:#}"), "no guest kernel; run: coppice setup"),
        )
        .ok();
    let loader = Arc::new(Loader::new(verified.clone()));
    let drivers = vmms::drivers(config, layout, boot.as_ref(), loader).await?;
    let records = store.run(|store| store.instances()).await;
    let mut records: Vec<_> = records
        .context("cannot read the records")?
        .into_iter()
        .flatten()
        .map(|entry| entry.record)
        .collect();
    let network = open_network(&config.network, layout, &records).await?;
    let connected = network.get().ok().cloned();
    if let Some(network) = &connected {
        forget_lost_leases(store, network.as_ref(), &mut records).await;
    }
    let edge = open_edge(config, store, connected, &records).await?;
    let context = Context {
        store: Arc::clone(store),
        images: Arc::clone(roots),
        verified,
        drivers,
        layout: layout.clone(),
        boot,
        starts: tokio::sync::Semaphore::new(parallel_starts()),
        network,
        zone: config.network.zone.clone(),
        ports: Arc::clone(&edge) as Arc<dyn HostPorts>,
        changes: Changes::default(),
        compression: config.compression,
        warm: config.warm,
        pagers: pagers(config, layout).await?,
        everybody: Everybody::default(),
        now,
    };
    Ok((context, edge))
}

/// The network of this host. Where it cannot be, instances run without.
async fn open_network(
    config: &NetworkConfig,
    layout: &Layout,
    records: &[InstanceRecord],
) -> Result<Networking> {
    if config.mode == NetworkMode::Off {
        return Ok(Networking::Missing(
            "networks are switched off by the configuration of the server".to_owned(),
        ));
    }
    let mut settings = network::Config::new(mark(&layout.mark())?, RUN_ROOT.into());
    settings.pool = config.pool;
    settings.ready = config.slots;
    settings.dns = Some(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, GUEST_DNS_PORT));
    match LinuxNetwork::open(settings, held(records)).await {
        Ok((network, opened)) => {
            info!(pool = %network.pool(), adopted = opened.adopted.len(), removed = opened.removed.len(), "network");
            if !opened.astray.is_empty() {
                warn!(slots = ?opened.astray, "machines that no readable record names are cut off until they are ended or known");
            }
            for change in &opened.changed {
                info!(%change, "a setting of the host was changed");
            }
            Ok(Networking::Ready(network))
        }
        // What was asked for by name must not be left out in silence.
        Err(error) if config.pool.is_some() => Err(error).context("cannot open the network"),
        Err(error) => {
            let why = chain(&error);
            warn!(%why, "instances have no network");
            Ok(Networking::Missing(why))
        }
    }
}

/// Removes everything of the network of a data directory whose daemon does not run.
pub(crate) fn remove_network(layout: &Layout) -> Result<usize> {
    let Some(names) = network_names(layout)? else {
        return Ok(0);
    };
    let removed = network::linux::remove_all(&names).context("cannot remove the network")?;
    Ok(removed.len())
}

/// The names of everything that the network of a data directory has on the host; none if it never
/// had one.
pub(crate) fn network_names(layout: &Layout) -> Result<Option<network::plan::Names>> {
    let path = layout.mark();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mark = text.trim().parse();
    let mark = mark.with_context(|| format!("{} is damaged", path.display()))?;
    let settings = network::Config::new(mark, RUN_ROOT.into());
    Ok(Some(network::plan::Names::new(&settings)))
}

/// The mark of this data directory, drawn when it is first needed.
fn mark(path: &Path) -> Result<network::Mark> {
    if let Ok(text) = std::fs::read_to_string(path) {
        let mark = text.trim().parse();
        return mark.with_context(|| format!("{} is damaged; remove it", path.display()));
    }
    let text = crate::entropy::mark();
    // Whole or not at all: half a mark would keep every later daemon from its start.
    let draft = path.with_extension("mark.new");
    std::fs::write(&draft, &text)
        .and_then(|()| std::fs::rename(&draft, path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(text.parse()?)
}

/// What fills the memory of machines page by page.
async fn pagers(config: &Config, layout: &Layout) -> Result<Arc<Pagers>> {
    let program = program::own();
    let lack = pager_support(config).await.err();
    if let Some(why) = &lack {
        match config.pagers.policy.backend {
            model::BackendWish::Uffd => {
                warn!(%why, "memory_backend is uffd, and no machine can have that here: they get file");
            }
            model::BackendWish::Auto | model::BackendWish::File => {
                info!(%why, "no machine can get its memory from a pager");
            }
        }
    }
    let host = PagerProcesses {
        lack,
        build: program::build_of(&program)?,
        program,
        arguments: vec![crate::PAGER_COMMAND.into()],
        uid: config.pagers.uid,
        settings: config.pagers.settings,
        limits: config.pagers.limits,
    };
    Ok(Pagers::new(Arc::new(host), layout, config.pagers.policy))
}

/// What pagers have of this host, or why they cannot be used on it.
pub(crate) async fn pager_support(config: &Config) -> Result<pager::Userfaultfd, String> {
    let program = program::own();
    let own_users = match pager::userfaultfd() {
        Ok(found) if !found.unprivileged => vmms::is_jailed(config).await,
        // It makes no difference.
        _ => false,
    };
    let arguments = [crate::PAGER_COMMAND.into()];
    look_for_userfaultfd(&program, &arguments, config.pagers.uid, own_users)
}

/// The process that serves ingress, names and published ports.
async fn open_edge(
    config: &Config,
    store: &Arc<Store>,
    network: Option<Arc<dyn Network>>,
    records: &[InstanceRecord],
) -> Result<Arc<Edge>> {
    let settings = Settings {
        bind: config.network.ingress_bind.clone(),
        http_port: config.network.ingress_http_port,
        certificates: config.network.certificates.clone(),
        zone: config.network.zone.clone(),
        upstreams: config.network.upstreams.clone(),
        host_address: network.as_ref().map(|network| network.pool().host()),
        daemon_socket: config.socket.clone(),
    };
    let program = std::env::current_exe().context("cannot find the daemon's own program")?;
    let place = ::edge::Place::in_data_dir(&config.data_dir);
    let build = program::build_of(&program)?;
    let start = ::edge::Start::new(place, program, build);
    let ingresses = store.run(|store| store.ingresses()).await;
    let ingresses = ingresses.context("cannot read the ingresses")?;
    let published = records
        .iter()
        .filter(|record| record.lease.is_some())
        .map(|record| {
            let ports = record.spec.network.policy.publish.clone();
            (record.id.clone(), ports)
        });
    let published = published.filter(|(_, ports)| !ports.is_empty()).collect();
    Ok(Edge::open(start, settings, network, ingresses, published).await)
}

/// Answers requests until the daemon is told to stop, and lets those under way end.
async fn answer(
    listeners: Listeners,
    router: axum::Router,
    instances: &Arc<Instances>,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> Result<()> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let housekeeping = tokio::spawn(crate::housekeeping::run(Arc::clone(instances), metrics));
    let mut server = tokio::spawn(serve(listeners, router, stopped));
    tokio::select! {
        signal = wait_for_signal() => signal?,
        // Nobody could reach a daemon without its server.
        ended = &mut server => return ended?.context("the server ended by itself"),
    }
    info!("stopping; machines run on");
    // The server holds the other end until it has ended.
    let _ = stop.send(true);
    housekeeping.abort();
    match tokio::time::timeout(STOP_DEADLINE, server).await {
        Ok(result) => result??,
        Err(_) => warn!("some requests did not end in time"),
    }
    Ok(())
}

async fn end_warm_forks(instances: &Instances) {
    let ended = tokio::time::timeout(STOP_DEADLINE, instances.drop_warm()).await;
    if ended.is_err() {
        warn!("some warm forks are left; the next start ends them");
    }
}

/// VMMs that start at one time. Starting is bound by the CPU: more than two for each
/// core only wait for each other.
fn parallel_starts() -> usize {
    2 * std::thread::available_parallelism().map_or(1, usize::from)
}

/// What machines boot with: the configured files, else what setup installed.
pub(crate) fn boot_files(config: &Config, layout: &Layout) -> Result<BootFiles> {
    if let Some(files) = config.boot.clone() {
        let paths = [&files.kernel, &files.initrd];
        for path in paths.into_iter().chain(&files.elf_kernel) {
            std::fs::File::open(path)
                .with_context(|| format!("cannot read the configured {}", path.display()))?;
        }
        return Ok(files);
    }
    let assets = Assets::open(&layout.boot())?;
    Ok(BootFiles {
        elf_kernel: assets.vmlinux().ok().map(Path::to_owned),
        kernel: assets.kernel,
        initrd: assets.initrd,
    })
}

async fn wait_for_signal() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The wall clock, to the millisecond.
fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}
