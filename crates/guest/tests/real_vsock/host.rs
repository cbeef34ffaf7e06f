//! The test on the host: a machine, what runs in it, and its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boot::Assets;
use guest::{Link, Output, StartSpec, UploadKind, UploadSpec};
use hypervisor::qemu::{AccelChoice, MachineChoice, QemuConfig, QemuDriver};
use hypervisor::{
    DiskFile, DiskFormat, Driver, KernelFiles, LaunchPlan, LogFiles, MachineSpec, Vm, VmStatus,
    disk,
};

use crate::support::{command, start_spec};
use crate::{INSIDE, LAUNCH};

/// For anything the machine does but the suite. It boots in three seconds on an idle host.
const DEADLINE: Duration = Duration::from_secs(60);

/// For the suite in an emulated machine; it takes half a minute on an idle host, and minutes on a very busy one.
const SUITE: Duration = Duration::from_secs(360);

/// Modules of the loopback, in the order in which they need each other.
const MODULES: [&str; 3] = [
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vsock_loopback",
];

/// Where everything of the test is in the machine.
const PLACE: &str = "/suite";

pub(crate) async fn run(assets: &Path) {
    let boot = Assets::open(&assets.join("boot")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let vm = launch(assets, &boot, scratch.path()).await;
    let outcome = tokio::spawn(use_machine(
        Arc::clone(&vm),
        cargo(assets, &boot, scratch.path()),
    ));
    if let Err(error) = outcome.await {
        let console = fs::read_to_string(scratch.path().join("console.log")).unwrap_or_default();
        println!("{console}");
        vm.kill().await.unwrap();
        std::panic::resume_unwind(error.into_panic());
    }
    vm.quit().await.unwrap();
}

async fn launch(assets: &Path, boot: &Assets, dir: &Path) -> Arc<dyn Vm> {
    let own = std::env::current_exe().unwrap();
    let config = QemuConfig {
        qemu: None,
        launcher: vec![own.to_string_lossy().into_owned(), LAUNCH.into()],
        accel: AccelChoice::Tcg,
        machine: MachineChoice::Microvm,
        vmm_uid: None,
        probe_kernel: None,
        verdict_cache: None,
    };
    let driver = QemuDriver::new(config, Arc::default()).await.unwrap();
    let run_dir = dir.join("run");
    fs::create_dir(&run_dir).unwrap();
    let disk = DiskFile {
        path: dir.join("disk"),
        format: DiskFormat::Raw,
    };
    disk::format_ext4(&disk.path, 512 << 20).unwrap();
    let top = disk::extend_chain(DiskFormat::Qcow2, vec![disk], dir.join("top"), 512 << 20);
    let plan = LaunchPlan {
        name: "real-vsock".into(),
        run_dir,
        machine: MachineSpec {
            vcpus: 1,
            ram_bytes: 512 << 20,
        },
        kernel: KernelFiles {
            kernel: boot.vmlinux().unwrap().to_owned(),
            initrd: boot.initrd.clone(),
            cmdline_extra: "coppice.poweroff=reset".into(),
        },
        root: assets.join("root.erofs"),
        disk: top.unwrap(),
        logs: LogFiles {
            vmm: dir.join("vmm.log"),
            console: dir.join("console.log"),
            app: dir.join("app.log"),
        },
        nic: None,
    };
    driver.launch(plan).await.unwrap()
}

/// Files for the machine: name, content.
type Cargo = Vec<(String, Vec<u8>)>;

/// This program with its libraries, and the modules.
fn cargo(assets: &Path, boot: &Assets, scratch: &Path) -> Cargo {
    let own = std::env::current_exe().unwrap();
    let stripped = scratch.join("suite");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(&own)
        .status();
    let program = match strip.is_ok_and(|status| status.success()) {
        true => stripped,
        false => own.clone(),
    };
    let mut cargo = vec![("suite".to_owned(), fs::read(program).unwrap())];
    let libraries = Command::new("ldd").arg(&own).output().unwrap().stdout;
    let text = String::from_utf8(libraries).unwrap();
    for path in text.split_whitespace().filter(|word| word.starts_with('/')) {
        cargo.push((name_of(Path::new(path)), fs::read(path).unwrap()));
    }
    let unpacked = scratch.join("kernel");
    fs::create_dir(&unpacked).unwrap();
    boot::package::unpack(&package(assets, boot), &unpacked).unwrap();
    let tree = unpacked.join("lib/modules").join(&boot.kernel_version);
    for module in MODULES {
        let name = format!("{module}.ko");
        let path = tree.join("kernel/net/vmw_vsock").join(&name);
        cargo.push((name, fs::read(path).unwrap()));
    }
    cargo
}

/// The package that the machine's kernel is from.
fn package(assets: &Path, boot: &Assets) -> PathBuf {
    let prefix = format!("linux-image-{}_", boot.kernel_version);
    let packages = fs::read_dir(assets.join("boot/packages")).unwrap();
    let mut paths = packages.map(|entry| entry.unwrap().path());
    let found = paths.find(|path| name_of(path).starts_with(&prefix));
    found.expect("the package of the kernel")
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

async fn use_machine(vm: Arc<dyn Vm>, cargo: Cargo) {
    let stream = vm.dial(DEADLINE).await.unwrap();
    let (link, _events) = Link::connect(stream, DEADLINE).await.unwrap();
    let spec = StartSpec {
        wall_clock_ns: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
        ..start_spec(&["/bin/sleep", "1000000"])
    };
    link.start(spec, DEADLINE).await.unwrap();
    assert!(
        said(&link, "cat /proc/cmdline")
            .await
            .contains("coppice.poweroff=reset")
    );
    let loader = cargo.iter().find(|(name, _)| name.starts_with("ld-linux"));
    let loader = loader
        .expect("the program is linked to libraries")
        .0
        .clone();
    for (name, content) in cargo {
        upload(&link, &format!("{PLACE}/{name}"), content).await;
    }
    for module in MODULES {
        assert_eq!(
            said(&link, &format!("insmod {PLACE}/{module}.ko 2>&1")).await,
            ""
        );
    }
    let suite = format!(
        "cd /tmp && {PLACE}/{loader} --library-path {PLACE} {PLACE}/suite {INSIDE} 2>&1; echo ended with $?"
    );
    let told = tokio::time::timeout(SUITE, said(&link, &suite))
        .await
        .expect("an end of the suite");
    assert!(
        told.ends_with("ended with 0\n"),
        "the suite failed in the machine"
    );

    link.shutdown(None, Duration::from_secs(2)).await.unwrap();
    tokio::time::timeout(DEADLINE, vm.powered_off())
        .await
        .expect("a power-off");
    assert_eq!(vm.status().await.unwrap(), VmStatus::Shutdown);
}

/// Runs a command; gives what it said. It is printed as it comes: one that hangs has said where.
async fn said(link: &Link, script: &str) -> String {
    let session = link
        .exec(command(&["/bin/sh", "-c", script]))
        .await
        .unwrap();
    let (_input, mut output) = session.split();
    let mut text = String::new();
    loop {
        match output.next().await.unwrap().expect("an exit") {
            Output::Stdout(bytes) | Output::Stderr(bytes) => {
                let piece = String::from_utf8_lossy(&bytes);
                print!("{piece}");
                text.push_str(&piece);
            }
            Output::Exit(_) => return text,
        }
    }
}

async fn upload(link: &Link, path: &str, content: Vec<u8>) {
    let spec = UploadSpec {
        path: path.to_owned(),
        kind: UploadKind::File,
        mode: Some(0o755),
        owner: None,
        mtime: None,
    };
    let mut upload = link.upload(spec).await.unwrap();
    upload.write(content).await.unwrap();
    upload.finish().await.unwrap();
}
