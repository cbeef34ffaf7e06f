//! Real QEMU passes the suite, with a real Linux guest and the real agent in it.
//!
//! Needs `COPPICE_ASSETS`, a directory with `boot/current/{kernel,initrd}` and `root.erofs` as `cargo xtask assets`
//! makes it. Takes the arguments of the standard test harness that runners use: parts of names (whole ones with
//! `--exact`) and `--list`. Measurements run only when they are named.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/agent.rs"]
mod agent;
#[path = "../support/chosen.rs"]
mod chosen;
mod connected;
mod extra;
#[path = "../support/linux.rs"]
mod linux;
#[path = "../support/network.rs"]
mod network;
#[path = "../support/scratch.rs"]
mod scratch;
mod speed;
mod subject;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use hypervisor::conformance::Scenario;

use chosen::Chosen;
use subject::Qemu;

/// First argument with which this program is the launcher.
const LAUNCH: &str = "launch";

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
        println!("skipped: COPPICE_ASSETS is not set, there is no guest to test QEMU with");
        return ExitCode::SUCCESS;
    };
    if std::process::Command::new("qemu-system-x86_64")
        .arg("--version")
        .output()
        .is_err()
    {
        println!("skipped: qemu-system-x86_64 is not installed");
        return ExitCode::SUCCESS;
    }
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(run(&chosen, assets));
    ExitCode::SUCCESS
}

/// Names of all tests; measurements are none.
fn names() -> impl Iterator<Item = String> {
    let scenarios = Scenario::ALL
        .into_iter()
        .map(|scenario| format!("{scenario:?}"));
    scenarios.chain(extra::ALL.into_iter().map(|(name, _)| name.to_owned()))
}

async fn run(chosen: &Chosen, assets: PathBuf) {
    let subject = Qemu::new(&assets);
    for scenario in Scenario::ALL {
        let name = format!("{scenario:?}");
        if chosen.takes(&name) {
            timed(&name, scenario.run(&subject)).await;
        }
    }
    let extras = extra::ALL
        .into_iter()
        .filter(|(name, _)| chosen.takes(name));
    let measurements = extra::MEASUREMENTS
        .into_iter()
        .filter(|(name, _)| chosen.names(name));
    for (name, test) in extras.chain(measurements) {
        timed(name, test(&subject)).await;
    }
}

async fn timed(name: &str, test: impl Future<Output = ()>) {
    let began = Instant::now();
    test.await;
    println!("{name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
}
