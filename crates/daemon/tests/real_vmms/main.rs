//! The daemon's instances on real VMMs: every process, memory image, disk and network slot is real.
//!
//! The guest is the probe guest, which runs where KVM runs no Linux; the agent it lacks is played by guest's fake
//! agent beside the VMM, with its state in the guest's own memory. Needs `COPPICE_ASSETS`, a directory with `probe.elf`
//! and `firecracker/` as `cargo xtask assets` makes it, and a `/dev/kvm` that can be opened. Takes the arguments of the
//! standard test harness that runners use.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod host;
mod hot;
mod life;
mod networks;
mod paging;
mod played;
mod probe;
mod scenarios;
mod speed;

#[path = "../../../hypervisor/tests/support/bare.rs"]
mod bare;
#[path = "../../../hypervisor/tests/support/chosen.rs"]
mod chosen;
#[path = "../../../hypervisor/tests/support/scratch.rs"]
mod scratch;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use chosen::Chosen;
use host::{Host, Vmm};

/// First argument with which this program is the launcher.
const LAUNCH: &str = "launch";

/// First argument with which it is a pager.
const PAGER: &str = "pager";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == LAUNCH) {
        return hypervisor::launch_main();
    }
    if arguments.first().is_some_and(|first| first == PAGER) {
        return pager::main(std::env::args_os().skip(2));
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    let tests = tests();
    if has("--list") {
        if !has("--ignored") {
            tests
                .iter()
                .for_each(|test| println!("{}: test", test.name));
        }
        return ExitCode::SUCCESS;
    }
    let chosen = Chosen::of(&arguments);
    let Some(assets) = std::env::var_os("COPPICE_ASSETS").map(PathBuf::from) else {
        println!("skipped: COPPICE_ASSETS is not set, there is no guest to test VMMs with");
        return ExitCode::SUCCESS;
    };
    if chosen.names(speed::MEASURE) {
        match speed::ON.iter().find_map(|vmm| vmm.lacks(&assets)) {
            Some(why) => println!("skipped: {why}"),
            None => speed::measure(Host::new(&assets, speed::ON, 1), has("--quick")),
        }
        return ExitCode::SUCCESS;
    }
    for test in tests {
        if !chosen.takes(&test.name) {
            continue;
        }
        if let Some(why) = test.vmms.iter().find_map(|vmm| vmm.lacks(&assets)) {
            println!("skipped: {why}");
            continue;
        }
        let began = Instant::now();
        (test.run)(Host::new(&assets, test.vmms, test.vcpus));
        println!(
            "{} ... ok ({:.1} s)",
            test.name,
            began.elapsed().as_secs_f64()
        );
    }
    ExitCode::SUCCESS
}

type Run = fn(Host);

/// What is run, and on what.
struct Test {
    name: String,
    vmms: &'static [Vmm],
    vcpus: u32,
    run: Run,
}

/// Every scenario on every VMM, and those that need several; where jails make no difference, with two processors too.
fn tests() -> Vec<Test> {
    let alone: [&'static [Vmm]; 3] = [
        &[Vmm::Firecracker],
        &[Vmm::JailedFirecracker],
        &[Vmm::QemuKvm],
    ];
    let both: &'static [Vmm] = &[Vmm::Firecracker, Vmm::QemuKvm];
    let mut tests = Vec::new();
    let mut add = |label: &str, vmms, vcpus, scenarios: &[(&str, Run)]| {
        tests.extend(scenarios.iter().map(|(name, run)| Test {
            name: format!("{label}::{name}"),
            vmms,
            vcpus,
            run: *run,
        }));
    };
    for vmms in alone {
        let label = vmms[0].label();
        add(label, vmms, 1, &scenarios::ON_ONE);
        add(label, vmms, 1, &hot::ON_ONE);
        if vmms[0].has_pagers() {
            add(label, vmms, 1, &paging::ON_PAGERS);
        }
    }
    for vmm in both.chunks(1) {
        let label = format!("{}_two_vcpus", vmm[0].label());
        add(&label, vmm, 2, &scenarios::ON_ONE);
    }
    add(
        "firecracker_two_vcpus",
        &both[..1],
        2,
        &paging::WITH_TWO_VCPUS,
    );
    add("both", both, 1, &scenarios::ON_BOTH);
    tests
}
