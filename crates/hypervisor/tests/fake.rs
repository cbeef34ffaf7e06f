//! The fake driver passes the suite that real ones pass.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Guest, Scenario, Subject};
use hypervisor::fake::{FakeDriver, FakeHost, Operation};
use hypervisor::{
    DiskFile, DiskFormat, Driver, KernelFiles, LaunchPlan, LogFiles, MachineSpec, Nic, Vm, VmmError,
};
use memory::Loader;
use support::notebook;
use tempfile::TempDir;

struct Fake {
    host: FakeHost,
    dir: TempDir,
    made: AtomicUsize,
    disk: DiskFormat,
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kernel", "initrd", "root"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        Self {
            host: FakeHost::new(),
            dir,
            made: AtomicUsize::new(0),
            disk: DiskFormat::Qcow2,
        }
    }

    fn new_driver(&self) -> FakeDriver {
        let driver = FakeDriver::new(
            self.host.clone(),
            Arc::new(notebook::make),
            Arc::new(Loader::default()),
        );
        match self.disk {
            DiskFormat::Qcow2 => driver,
            DiskFormat::Raw => driver.of_kind("fake-raw", DiskFormat::Raw),
        }
    }
}

#[async_trait]
impl Subject for Fake {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::new(self.new_driver())
    }

    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str) {
        (Arc::new(self.new_driver().with_version("2")), "vmm.version")
    }

    fn guest(&self) -> &dyn Guest {
        self
    }
}

#[async_trait]
impl Guest for Fake {
    fn scratch(&self) -> PathBuf {
        let dir = self
            .dir
            .path()
            .join(self.made.fetch_add(1, Ordering::Relaxed).to_string());
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    fn kernel(&self) -> KernelFiles {
        let path = |name| self.dir.path().join(name);
        KernelFiles {
            kernel: path("kernel"),
            initrd: path("initrd"),
            cmdline_extra: String::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn ram_bytes(&self) -> u64 {
        16 << 20
    }

    fn disk_bytes(&self) -> u64 {
        1 << 20
    }

    fn make_base_disk(&self, path: &Path) {
        std::fs::write(path, "an empty disk").unwrap();
    }

    async fn first_contact(&self, _: &dyn Vm) {}

    async fn ask(&self, vm: &dyn Vm, question: &Ask) -> String {
        notebook::ask(vm, question).await
    }

    fn nic(&self) -> Option<Nic> {
        Some(Nic {
            netns: "/run/netns/fake".into(),
            tap: "tap0".into(),
            mac: [2, 0, 0, 0, 0, 1],
        })
    }

    fn most_diff_bytes(&self) -> u64 {
        64 << 10
    }
}

macro_rules! scenarios {
    ($($test:ident => $scenario:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $test() {
                Scenario::$scenario.run(&Fake::new()).await;
            }
        )*

        #[test]
        fn no_scenario_is_left_out() {
            assert_eq!([$(Scenario::$scenario),*], Scenario::ALL);
        }
    };
}

scenarios! {
    launch_answers => LaunchAnswers,
    pause_resume => PauseResume,
    power_off => PowerOff,
    kill_exits => KillExits,
    adopt => Adopt,
    standby_restore => StandbyRestore,
    capture_and_go_on => CaptureAndGoOn,
    capture_twice => CaptureTwice,
    forks_are_isolated => ForksAreIsolated,
    hot_pages => HotPages,
    diff_standby => DiffStandby,
    chain => Chain,
    copied_fork => CopiedFork,
    compressed => Compressed,
    mismatch_refused => MismatchRefused,
    nic_must_fit => NicMustFit,
    damage_refused => DamageRefused,
    failure_leaves_nothing => FailureLeavesNothing,
}

#[tokio::test]
async fn a_vmm_of_raw_disks_passes_too_and_each_adopts_its_own() {
    let fake = Fake {
        disk: DiskFormat::Raw,
        ..Fake::new()
    };
    for scenario in Scenario::ALL {
        scenario.run(&fake).await;
    }
    let (raw, other) = (fake.new_driver(), Fake::new());
    let other = Fake {
        host: fake.host.clone(),
        ..other
    };
    let run_dir = fake.scratch();
    let disk = DiskFile {
        path: run_dir.join("disk"),
        format: DiskFormat::Raw,
    };
    fake.make_base_disk(&disk.path);
    let log = |name| run_dir.join(name);
    let plan = LaunchPlan {
        name: "one".to_owned(),
        run_dir: run_dir.clone(),
        machine: MachineSpec {
            vcpus: 1,
            ram_bytes: fake.ram_bytes(),
        },
        kernel: fake.kernel(),
        root: fake.root(),
        disk: vec![disk],
        logs: LogFiles {
            vmm: log("vmm"),
            console: log("console"),
            app: log("app"),
        },
        nic: None,
    };
    let vm = raw.launch(plan).await.unwrap();
    let refused = other.new_driver().adopt(&run_dir).await.err().unwrap();
    assert!(
        matches!(&refused, VmmError::Foreign { owner } if owner == "fake-raw"),
        "{refused}"
    );
    let adopted = raw.adopt(&run_dir).await.unwrap().unwrap();
    assert_eq!(adopted.process(), vm.process());
    vm.kill().await.unwrap();
}

#[tokio::test]
async fn operations_fail_and_wait_as_told() {
    let fake = Fake::new();
    let driver = fake.new_driver();
    let run_dir = fake.scratch();
    fake.host.fail_next(Operation::Adopt, "as told");
    let error = driver.adopt(&run_dir).await.err().unwrap();
    assert_eq!(error.to_string(), "as told");
    assert!(
        driver.adopt(&run_dir).await.unwrap().is_none(),
        "only the next one fails"
    );
    let mut held = fake.host.hold_next(Operation::Adopt);
    let adopting =
        tokio::spawn(async move { driver.adopt(&run_dir).await.map(|found| found.is_none()) });
    assert!(held.reached().await);
    assert!(!adopting.is_finished());
    held.release();
    assert!(adopting.await.unwrap().unwrap());
    assert_eq!(fake.host.machine_count(), 0);
}
