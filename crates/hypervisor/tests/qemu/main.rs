//! Real QEMU passes the suite, with a real Linux guest and the real agent in it.
//!
//! Needs `COPPICE_ASSETS`, a directory with `boot/current/{kernel,initrd}` and `root.erofs` as `cargo xtask assets`
//! makes it. Arguments are parts of names; without one all scenarios run, one after the other.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod agent;
mod extra;
mod speed;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use hypervisor::conformance::Scenario;

use subject::Qemu;

/// First argument with which this program is the launcher.
const LAUNCH: &str = "launch";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, spec] = arguments.as_slice()
        && first == LAUNCH
    {
        return hypervisor::launch_main(Path::new(spec));
    }
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
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let subject = Qemu::new(assets);
        for scenario in Scenario::ALL
            .into_iter()
            .filter(|scenario| wanted(&format!("{scenario:?}")))
        {
            let began = Instant::now();
            scenario.run(&subject).await;
            println!(
                "{scenario:?} ... ok ({:.1} s)",
                began.elapsed().as_secs_f64()
            );
        }
        let named = |name: &str| !filters.is_empty() && wanted(name);
        let measurements = extra::MEASUREMENTS
            .into_iter()
            .filter(|(name, _)| named(name));
        for (name, run) in extra::ALL.into_iter().chain(measurements) {
            if wanted(name) {
                let began = Instant::now();
                run(&subject).await;
                println!("{name} ... ok ({:.1} s)", began.elapsed().as_secs_f64());
            }
        }
    });
    ExitCode::SUCCESS
}
