//! One life of the daemon, on a runtime of its own: when that ends, so does every task of the daemon, at whatever it is
//! doing, as by SIGKILL.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use daemon::instances::{
    Changes, Context, Drivers, Everybody, ForkOrder, HostPorts, Instances, OpError, Pagers,
    Published, Swept, WarmPolicy,
};
use daemon::store::Store;
use guest::{ExecSpec, Output};
use hypervisor::{ProcessId, Vm};
use images::ImageStore;
use memory::{Loader, Verified};
use model::network::Publish;
use model::{BackendWish, ForkAsk, InstanceId, State, UnixMillis};
use tokio::runtime::{Builder, Runtime};

use crate::PAGER;
use crate::host::{Host, Vmm};
use crate::probe::Line;

/// Longest that anything here may take, however busy the host is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long blocking work under way may take to end when a daemon is killed.
const LAST_BREATH: Duration = Duration::from_secs(20);

pub(crate) struct Life<'a> {
    host: &'a Host,
    runtime: Runtime,
    pub(crate) instances: Arc<Instances>,
    pub(crate) swept: Swept,
}

impl<'a> Life<'a> {
    /// A daemon that has started on this host.
    pub(crate) fn begin(host: &'a Host) -> Self {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (instances, swept) = runtime.block_on(async {
            let context = Arc::new(context(host).await);
            Instances::open(context).await.unwrap()
        });
        Self {
            host,
            runtime,
            instances,
            swept,
        }
    }

    /// The daemon is killed. Its machines go on.
    pub(crate) fn end(self) {
        drop(self.instances);
        self.runtime.shutdown_timeout(LAST_BREATH);
    }

    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A running instance.
    pub(crate) fn running(&self, name: &str, vmm: Vmm) -> InstanceId {
        let spec = self.host.spec(vmm);
        let made = self.instances.create(name.parse().unwrap(), spec, None);
        let id = self.run(made).unwrap();
        self.reach(&id, State::Running);
        id
    }

    /// A template whose memory and disk hold something.
    pub(crate) fn template(&self, name: &str, vmm: Vmm) -> InstanceId {
        let id = self.running(name, vmm);
        assert_eq!(self.exec(&id, "counter"), "1");
        self.ask(&id, "put disk owner template");
        self.run(self.instances.standby(&id, None)).unwrap();
        self.run(self.instances.promote(&id, Default::default()))
            .unwrap();
        assert_eq!(self.state(&id), State::Template);
        id
    }

    /// Running forks, one for each that was asked for.
    pub(crate) fn forks(&self, source: &InstanceId, prefix: &str, ask: ForkAsk) -> Vec<InstanceId> {
        self.forks_from(source, prefix, ask, None)
    }

    /// As [`Life::forks`], with memory from a backend.
    pub(crate) fn forks_from(
        &self,
        source: &InstanceId,
        prefix: &str,
        ask: ForkAsk,
        memory_backend: Option<BackendWish>,
    ) -> Vec<InstanceId> {
        let order = ForkOrder {
            ask,
            name: prefix.to_owned(),
            env: Default::default(),
            tags: None,
            post_fork: None,
            network: Default::default(),
            memory_backend,
            hypervisor: None,
            heir_of: None,
        };
        let made = self.run(self.instances.fork(source, order)).unwrap();
        let forks: Vec<InstanceId> = made.into_iter().map(|one| one.outcome.unwrap()).collect();
        for fork in &forks {
            self.reach(fork, State::Running);
        }
        forks
    }

    /// Waits until the instance is in `state` and nothing is under way.
    pub(crate) fn reach(&self, id: &InstanceId, state: State) {
        let outcome = self.run(self.instances.wait(id, state, PATIENCE)).unwrap();
        assert_eq!(outcome.state, state, "{:?}", outcome.state_error);
    }

    pub(crate) fn published(&self, id: &InstanceId) -> Published {
        self.instances.published(id).unwrap()
    }

    pub(crate) fn state(&self, id: &InstanceId) -> State {
        self.published(id).state
    }

    /// The process of its VMM.
    pub(crate) fn process(&self, id: &InstanceId) -> Option<ProcessId> {
        self.published(id).vm.map(|vm| vm.process())
    }

    /// The machine itself.
    pub(crate) fn guest_vm(&self, id: &InstanceId) -> Arc<dyn Vm> {
        self.host.guests.of(id.as_str()).vm
    }

    /// When its guest first answered.
    pub(crate) fn answered_at(&self, id: &InstanceId) -> Instant {
        self.host.guests.of(id.as_str()).answered
    }

    /// One command to the guest itself.
    pub(crate) fn ask(&self, id: &InstanceId, command: &str) -> String {
        let vm = self.host.guests.of(id.as_str()).vm;
        self.run(async {
            let mut line = Line::to(vm.as_ref()).await.unwrap();
            line.ask(command).await.unwrap()
        })
    }

    /// One command to the agent, through the daemon's own line; what it printed.
    pub(crate) fn exec(&self, id: &InstanceId, command: &str) -> String {
        self.run(async {
            let link = self.instances.wait_for_link(id).await.unwrap();
            let spec = ExecSpec {
                argv: command.split(' ').map(str::to_owned).collect(),
                ..ExecSpec::default()
            };
            let (_input, mut output) = link.exec(spec).await.unwrap().split();
            let mut printed = Vec::new();
            loop {
                match output.next().await.unwrap().unwrap() {
                    Output::Stdout(bytes) | Output::Stderr(bytes) => {
                        printed.extend_from_slice(&bytes);
                    }
                    Output::Exit(_) => {
                        return String::from_utf8(printed).unwrap().trim_end().to_owned();
                    }
                }
            }
        })
    }

    /// Deletes these, in this order, and checks that nothing of them is left.
    pub(crate) fn delete(&self, ids: impl IntoIterator<Item = InstanceId>) {
        for id in ids {
            let process = self.process(&id);
            self.run(self.instances.delete(&id, false)).unwrap();
            assert!(!self.host.layout.instance(&id).root().exists());
            if let Some(process) = process {
                assert!(!is_alive(process), "a VMM is left");
            }
        }
    }
}

/// Whether a process still runs.
pub(crate) fn is_alive(process: ProcessId) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid));
    // Fields after the name, which may hold anything: the first is the state, the twentieth the start.
    stat.is_ok_and(|stat| {
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[0] != "Z" && fields[19] == process.start_time.to_string()
    })
}

/// Some forks, running.
pub(crate) fn several(count: u32) -> ForkAsk {
    ForkAsk {
        share_memory: None,
        from_running: false,
        names_template: false,
        target: Some(model::Target::Running),
        count: Some(count),
    }
}

async fn context(host: &Host) -> Context {
    let verified = Verified::default();
    let loader = Arc::new(Loader::new(verified.clone()));
    let mut drivers = Drivers::new(host.vmms[0].name());
    for vmm in host.vmms {
        drivers = drivers.with(host.driver(*vmm, Arc::clone(&loader)).await);
    }
    let records: Vec<_> = host.records.instances().unwrap();
    let records: Vec<_> = records
        .into_iter()
        .map(|entry| entry.unwrap().record)
        .collect();
    Context {
        store: Arc::new(Store::open(&host.layout.database()).unwrap()),
        images: Arc::new(ImageStore::open(&host.layout.images()).unwrap()),
        verified,
        drivers,
        layout: host.layout.clone(),
        boot: Some(host.boot_files()),
        starts: tokio::sync::Semaphore::new(4),
        network: host.network.open(&records).await,
        zone: "test.internal".to_owned(),
        ports: Arc::new(NoPorts),
        changes: Changes::default(),
        compression: host.compression,
        warm: WarmPolicy {
            forks: host.warm,
            idle: Duration::from_secs(300),
        },
        pagers: Pagers::new(Arc::new(pagers(host.build)), &host.layout, host.paging),
        everybody: Everybody::default(),
        now,
    }
}

/// This program in another role; it may take as long as it likes on a busy host.
fn pagers(build: &str) -> pager::PagerProcesses {
    pager::PagerProcesses {
        program: std::env::current_exe().unwrap(),
        arguments: vec![PAGER.into()],
        build: build.to_owned(),
        lack: None,
        uid: None,
        settings: pager::Settings::default(),
        limits: pager::Limits {
            start: PATIENCE,
            answer: PATIENCE,
            silence: PATIENCE,
            takeover: PATIENCE,
            ..pager::Limits::default()
        },
    }
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

fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMillis(i64::try_from(since.as_millis()).unwrap())
}
