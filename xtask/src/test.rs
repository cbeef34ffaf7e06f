//! `cargo xtask test`: all tests, those on real guests too.
//!
//! A test that cannot run here prints a line beginning with `skipped: ` and its reason, and passes.
//! Such tests are counted apart. With `CI=true` it is a failure if no test ran a real guest at all.

mod report;

use std::env;
use std::process::Command;

use anyhow::{Context, bail};
use boot::Assets;
use hypervisor::qemu::{AccelChoice, KvmVerdict, MachineChoice, QemuConfig};

use crate::assets::ASSETS_VARIABLE;
use crate::workspace::Workspace;
use crate::{assets, nested, process};
use report::Report;

/// Environment variable by which tests find the programs as users run them.
const PROGRAMS_VARIABLE: &str = "COPPICE_BIN_DIR";

/// Environment variable by which tests learn how daemons run guests.
const ACCELERATOR_VARIABLE: &str = "COPPICE_TEST_ACCELERATOR";

/// What they learn where KVM runs guests.
const USABLE: &str = "auto";

/// Looks at KVM once for all tests: where it does not run guests that is found out by waiting for one,
/// and every test has a data directory of its own.
fn accelerator(workspace: &Workspace) -> anyhow::Result<&'static str> {
    let config = QemuConfig {
        qemu: None,
        launcher: Vec::new(),
        accel: AccelChoice::Auto,
        machine: MachineChoice::Microvm,
        vmm_uid: None,
        probe_kernel: Some(Assets::open(&workspace.assets_dir().join("boot"))?.kernel),
        verdict_cache: Some(workspace.target_dir.join("kvm-verdict.json")),
    };
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let report = runtime.block_on(hypervisor::qemu::probe(&config))?;
    println!("kvm: {}", report.kvm.explain());
    Ok(match report.kvm {
        KvmVerdict::Usable => USABLE,
        _ => "tcg",
    })
}

/// Builds programs and assets, runs the tests and prints how they went; the last line is the sum.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    assets::make(workspace)?;
    process::run(process::cargo(workspace).args(["build", "--quiet", "--workspace", "--bins"]))?;

    let accelerator = accelerator(workspace)?;
    if accelerator != USABLE {
        nested::make(workspace);
    }
    let nextest = process::find_program("cargo-nextest").is_some();
    let mut command = process::cargo(workspace);
    command
        .env(ASSETS_VARIABLE, workspace.assets_dir())
        .env(PROGRAMS_VARIABLE, workspace.target_dir.join("debug"))
        .env(ACCELERATOR_VARIABLE, accelerator);
    let (report, success) = if nextest {
        with_nextest(workspace, &mut command, arguments)?
    } else {
        with_cargo_test(&mut command, arguments)?
    };

    for skipped in &report.skipped {
        println!("{skipped}");
    }
    let in_ci = env::var("CI").is_ok_and(|value| value == "true");
    // Whoever names tests to run knows which kinds are among them.
    let guests_ran = !in_ci || !arguments.is_empty() || report.real_guest_ran();
    if !guests_ran {
        println!("no test ran a real guest, which CI is for");
    }
    println!("{}", report.summary());
    if !success || report.failed > 0 || !guests_ran {
        bail!("tests failed");
    }
    Ok(())
}

fn with_nextest(
    workspace: &Workspace,
    command: &mut Command,
    arguments: &[String],
) -> anyhow::Result<(Report, bool)> {
    // Where nextest's own settings put it, whatever cargo's target directory is.
    let path = workspace.root.join("target/nextest/default/junit.xml");
    let _ = std::fs::remove_file(&path);
    let status = command
        .args(["nextest", "run", "--no-tests", "pass"])
        .args(arguments)
        .status()
        .context("start cargo nextest")?;
    let xml = std::fs::read_to_string(&path)
        .with_context(|| format!("cargo nextest: {status}, and no report"))?;
    let report = Report::from_junit(&xml);
    Ok((report, status.success()))
}

fn with_cargo_test(command: &mut Command, arguments: &[String]) -> anyhow::Result<(Report, bool)> {
    command.args(["test", "--no-fail-fast"]).args(arguments);
    command.args(["--", "--show-output"]);
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    Ok((Report::from_cargo_test(&text), output.status.success()))
}
