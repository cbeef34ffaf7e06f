//! The daemon's instances on real VMMs: every process, memory image, disk and network slot is real.
//!
//! The guest is the probe guest, which runs where KVM runs no Linux; the agent it lacks is played by guest's fake
//! agent beside the VMM, with its state in the guest's own memory. Needs `COPPICE_ASSETS`, a directory with `probe.elf`
//! and `firecracker/` as `cargo xtask assets` makes it, and a `/dev/kvm` that can be opened. Takes the arguments of the
//! standard test harness that runners use.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod host;
mod life;
mod networks;
mod paging;
mod played;
mod probe;
mod scenarios;

#[path = "../../../hypervisor/tests/support/chosen.rs"]
mod chosen;
#[path = "../../../hypervisor/tests/support/scratch.rs"]
mod scratch;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use chosen::Chosen;
use host::Vmm;

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
            tests.iter().for_each(|(name, ..)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let chosen = Chosen::of(&arguments);
    let Some(assets) = std::env::var_os("COPPICE_ASSETS").map(PathBuf::from) else {
        println!("skipped: COPPICE_ASSETS is not set, there is no guest to test VMMs with");
        return ExitCode::SUCCESS;
    };
    for (name, vmms, run) in tests {
        if !chosen.takes(&name) {
            continue;
        }
        if let Some(why) = vmms.iter().find_map(|vmm| vmm.lacks(&assets)) {
            println!("skipped: {why}");
            continue;
        }
        let began = Instant::now();
        run(&assets, vmms);
        println!("{name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

type Run = fn(&Path, &'static [Vmm]);

/// Every scenario on every VMM, and those that need several.
fn tests() -> Vec<(String, &'static [Vmm], Run)> {
    let alone: [&'static [Vmm]; 3] = [
        &[Vmm::Firecracker],
        &[Vmm::JailedFirecracker],
        &[Vmm::QemuKvm],
    ];
    let mut tests = Vec::new();
    for vmms in alone {
        for (name, run) in scenarios::ON_ONE {
            tests.push((format!("{}::{name}", vmms[0].label()), vmms, run));
        }
    }
    for vmms in &alone[..2] {
        for (name, run) in paging::ON_PAGERS {
            tests.push((format!("{}::{name}", vmms[0].label()), *vmms, run));
        }
    }
    for (name, run) in scenarios::ON_BOTH {
        let both: &'static [Vmm] = &[Vmm::Firecracker, Vmm::QemuKvm];
        tests.push((format!("both::{name}"), both, run));
    }
    tests
}
