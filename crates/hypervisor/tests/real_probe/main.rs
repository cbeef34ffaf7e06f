//! Real VMMs on real KVM pass the suite with the probe guest, where KVM runs no Linux too.
//!
//! Needs `COPPICE_ASSETS`, a directory with `probe.elf` and `firecracker/` as `cargo xtask assets` makes it, and a
//! `/dev/kvm` that can be opened. Takes the arguments of the standard test harness that runners use.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod by_hand;
mod eight;
mod extra;
mod facts;
mod firecracker;
mod jails;
mod mapped;
mod paged;
mod pagers;
mod probe;
mod qemu;
mod speed;
mod two_vcpus;

#[path = "../support/bare.rs"]
mod bare;
#[path = "../support/chosen.rs"]
mod chosen;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/scratch.rs"]
mod scratch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use hypervisor::conformance::{Scenario, Subject};

use chosen::Chosen;

/// First argument with which this program is the launcher.
const LAUNCH: &str = "launch";

/// First argument with which it is a pager.
const PAGER: &str = "pager";

/// VMMs that are tested.
const FIRECRACKER: &str = "firecracker";
const JAILED: &str = "jailed_firecracker";
const TWO_VCPUS: &str = "firecracker_two_vcpus";
const QEMU: &str = "qemu_kvm";
const QEMU_TWO_VCPUS: &str = "qemu_kvm_two_vcpus";

/// What is asked of both VMMs with two processors, beyond the suite.
const BOTH_GO_ON: &str = "both_go_on";

/// What prints figures, and runs only when it is named.
const MEASURE: &str = "measure";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == LAUNCH) {
        return hypervisor::launch_main();
    }
    if arguments.first().is_some_and(|first| first == PAGER) {
        return pager::main(std::env::args_os().skip(2));
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
        println!("skipped: COPPICE_ASSETS is not set, there is no guest to test VMMs with");
        return ExitCode::SUCCESS;
    };
    let kvm = hypervisor::firecracker::KvmAccess::find();
    if kvm != hypervisor::firecracker::KvmAccess::Usable {
        println!("skipped: {}", kvm.explain());
        return ExitCode::SUCCESS;
    }
    let tests = async move {
        on_firecracker(&chosen, &assets).await;
        on_qemu(&chosen, &assets).await;
    };
    // In a task, as in the daemon: what is not a worker of the runtime is woken by way of one.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(runtime.spawn(tests)).unwrap();
    ExitCode::SUCCESS
}

fn names() -> impl Iterator<Item = String> {
    let scenarios = [FIRECRACKER, TWO_VCPUS, JAILED, QEMU, QEMU_TWO_VCPUS]
        .into_iter()
        .flat_map(|vmm| Scenario::ALL.map(|scenario| format!("{vmm}::{scenario:?}")));
    let extras = extra::ALL.map(|(name, _)| format!("{FIRECRACKER}::{name}"));
    let jailed = extra::JAILED.map(|(name, _)| format!("{JAILED}::{name}"));
    let two = extra::TWO_VCPUS.map(|(name, _)| format!("{TWO_VCPUS}::{name}"));
    let both = format!("{QEMU_TWO_VCPUS}::{BOTH_GO_ON}");
    scenarios
        .chain(extras)
        .chain(jailed)
        .chain(two)
        .chain([both])
}

async fn on_firecracker(chosen: &Chosen, assets: &Path) {
    let measures = chosen.names(MEASURE);
    if !measures && !names().any(|name| !name.starts_with(QEMU) && chosen.takes(&name)) {
        return;
    }
    if !assets.join("firecracker/firecracker").is_file() {
        println!("skipped: there is no Firecracker among the assets");
        return;
    }
    let subject = firecracker::Firecracker::new(assets);
    scenarios(chosen, FIRECRACKER, &subject).await;
    extras(chosen, FIRECRACKER, &extra::ALL, &subject).await;
    if measures {
        let qemu = has_qemu().then(|| qemu::Qemu::new(assets));
        speed::measure(&subject, qemu.as_ref()).await;
        return;
    }
    let two = firecracker::Firecracker::with_two_vcpus(assets);
    scenarios(chosen, TWO_VCPUS, &two).await;
    extras(chosen, TWO_VCPUS, &extra::TWO_VCPUS, &two).await;
    if rustix::process::geteuid().is_root() {
        let jailed = firecracker::Firecracker::jailed(assets);
        scenarios(chosen, JAILED, &jailed).await;
        extras(chosen, JAILED, &extra::JAILED, &jailed).await;
    } else {
        println!("skipped: only root can put machines into jails");
    }
}

async fn on_qemu(chosen: &Chosen, assets: &Path) {
    if !names().any(|name| name.starts_with(QEMU) && chosen.takes(&name)) {
        return;
    }
    if !has_qemu() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return;
    }
    scenarios(chosen, QEMU, &qemu::Qemu::new(assets)).await;
    let two = qemu::Qemu::with_two_vcpus(assets);
    scenarios(chosen, QEMU_TWO_VCPUS, &two).await;
    let name = format!("{QEMU_TWO_VCPUS}::{BOTH_GO_ON}");
    if chosen.takes(&name) {
        timed(&name, two_vcpus::both_go_on(&two)).await;
    }
}

fn has_qemu() -> bool {
    let found = std::process::Command::new("qemu-system-x86_64")
        .arg("--version")
        .output();
    found.is_ok()
}

async fn scenarios(chosen: &Chosen, vmm: &str, subject: &dyn Subject) {
    for scenario in Scenario::ALL {
        let name = format!("{vmm}::{scenario:?}");
        if chosen.takes(&name) {
            timed(&name, scenario.run(subject)).await;
        }
    }
}

async fn extras(
    chosen: &Chosen,
    vmm: &str,
    tests: &[(&str, extra::Run)],
    subject: &firecracker::Firecracker,
) {
    for (name, test) in tests {
        let name = format!("{vmm}::{name}");
        if chosen.takes(&name) {
            timed(&name, test(subject)).await;
        }
    }
}

async fn timed(name: &str, test: impl Future<Output = ()>) {
    let began = Instant::now();
    test.await;
    println!("{name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
}
