//! Real Firecracker passes the suite with a real Linux guest and the real agent in it, where KVM runs Linux.
//!
//! Needs `COPPICE_ASSETS`, a directory with `boot/current/{vmlinux,initrd}`, `root.erofs` and `firecracker/` as
//! `cargo xtask assets` makes it. Takes the arguments of the standard test harness that runners use.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/chosen.rs"]
mod chosen;
#[path = "../support/linux.rs"]
mod linux;
mod logs;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/scratch.rs"]
mod scratch;
mod subject;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use hypervisor::conformance::{Scenario, Subject};
use hypervisor::firecracker::KvmAccess;
use hypervisor::qemu::{AccelChoice, KvmVerdict, MachineChoice, QemuConfig};
use nested::Where;

use chosen::Chosen;
use subject::Firecracker;

/// First argument with which this program is the launcher.
const LAUNCH: &str = "launch";

/// Set, the whole suite is done in nested hosts too.
const ALL: &str = "COPPICE_TEST_ALL_NESTED";

/// Names of what is tested besides the suite.
const OUTPUT: &str = "output_is_in_the_app_log";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == LAUNCH) {
        return hypervisor::launch_main();
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    if has("--list") {
        if !has("--ignored") {
            names().for_each(|name| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let chosen = Chosen::of(&arguments);
    let Some(assets) = std::env::var_os("COPPICE_ASSETS").map(PathBuf::from) else {
        println!("skipped: COPPICE_ASSETS is not set, there is no guest to test Firecracker with");
        return ExitCode::SUCCESS;
    };
    if let Some(missing) = missing(&assets) {
        println!("skipped: {missing}");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match Where::decide(runtime.block_on(obstacle(&assets))) {
        Where::Here => runtime.block_on(run(&chosen, &assets)),
        Where::In(_) if !in_nested_host(&chosen) => {
            println!(
                "skipped: takes long in a nested host, and the probe guest has it; {ALL}=1 runs it"
            );
        }
        Where::In(host) => {
            let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
            let arguments: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
            nested::program(&host, &std::env::current_exe().unwrap(), &arguments);
        }
        Where::Nowhere(why) => println!("skipped: {why}"),
    }
    ExitCode::SUCCESS
}

/// Whether one of the chosen is done in a nested host, where each takes half a minute: those in which Linux differs from
/// the probe guest, by its connections, its memory or its end.
fn in_nested_host(chosen: &Chosen) -> bool {
    const DONE: [Scenario; 7] = [
        Scenario::PowerOff,
        Scenario::Adopt,
        Scenario::StandbyRestore,
        Scenario::CaptureAndGoOn,
        Scenario::ForksAreIsolated,
        Scenario::DiffStandby,
        Scenario::HotPages,
    ];
    let done = DONE.map(|scenario| format!("{scenario:?}"));
    std::env::var_os(ALL).is_some()
        || done.iter().any(|name| chosen.takes(name))
        || chosen.takes(OUTPUT)
}

/// What the assets lack.
fn missing(assets: &Path) -> Option<&'static str> {
    if !assets.join("firecracker/firecracker").is_file() {
        return Some("there is no Firecracker among the assets");
    }
    if !assets.join("boot/current/vmlinux").is_file() {
        return Some("the boot assets have no uncompressed kernel");
    }
    None
}

fn names() -> impl Iterator<Item = String> {
    let scenarios = Scenario::ALL.map(|scenario| format!("{scenario:?}"));
    scenarios.into_iter().chain([OUTPUT.to_owned()])
}

/// Why no Linux guest runs under Firecracker here.
async fn obstacle(assets: &Path) -> Option<String> {
    let kvm = KvmAccess::find();
    if kvm != KvmAccess::Usable {
        return Some(kvm.explain().to_owned());
    }
    // `cargo xtask test` has looked already, once for all tests.
    match std::env::var("COPPICE_TEST_ACCELERATOR").as_deref() {
        Ok("tcg") => return Some("/dev/kvm runs no Linux guest: see the line of xtask".to_owned()),
        Ok(_) => return None,
        Err(_) => {}
    }
    let config = QemuConfig {
        qemu: None,
        launcher: Vec::new(),
        accel: AccelChoice::Auto,
        machine: MachineChoice::Microvm,
        vmm_uid: None,
        probe_kernel: Some(assets.join("boot/current/kernel")),
        verdict_cache: None,
    };
    match hypervisor::qemu::probe(&config).await {
        Ok(report) => match report.kvm {
            KvmVerdict::CannotRunGuest(reason) => {
                Some(format!("/dev/kvm runs no Linux guest: {reason}"))
            }
            KvmVerdict::Usable | KvmVerdict::Absent | KvmVerdict::NoAccess => None,
        },
        // Nothing is known against it.
        Err(_) => None,
    }
}

async fn run(chosen: &Chosen, assets: &Path) {
    let subject = Firecracker::new(assets);
    for scenario in Scenario::ALL {
        let name = format!("{scenario:?}");
        if chosen.takes(&name) {
            timed(&name, scenario.run(&subject as &dyn Subject)).await;
        }
    }
    if chosen.takes(OUTPUT) {
        timed(OUTPUT, logs::output_is_in_the_app_log(&subject)).await;
    }
}

async fn timed(name: &str, test: impl Future<Output = ()>) {
    let began = Instant::now();
    test.await;
    println!("{name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
}
