//! Firecracker and the pager. The programs of the crates measure; what is promised is judged here.
//!
//! A machine on Firecracker runs the probe guest, which needs no Linux of KVM.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use hypervisor::firecracker::KvmAccess;
use serde_json::Value;

use super::report::Report;
use crate::assets::ASSETS_VARIABLE;
use crate::process;
use crate::workspace::Workspace;

/// A restore by the driver, against the same requests by hand.
const DRIVER_BOUND: f64 = 1.3;

/// From nothing to the first answer of a machine that continues, ms.
const ANSWER_BOUND_MS: f64 = 100.0;

/// Reading 16 MiB that a pager gives in pieces of 64 KiB, ms.
const PAGED_BOUND_MS: f64 = 200.0;

/// Reading 16 MiB with hot pages, against a mapping of the file.
const HOT_BOUND: f64 = 1.2;

/// Half the rate of a copy into fresh memory: twice the time.
const COPY_BOUND: f64 = 1.0 / 0.5;

/// Of the rate of one call for everything.
const BY_HAND_BOUND: f64 = 1.0 / 0.85;

/// From the loss of a pager until its machines are served again, ms.
const TAKEOVER_BOUND_MS: f64 = 1000.0;

/// All of it.
pub(super) fn measure(
    workspace: &Workspace,
    quick: bool,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!("the pager");
    match figures(workspace, "pager", "real", quick)? {
        Some(figures) => judge_pager(&figures, report)?,
        None => println!("    SKIPPED: userfaultfd is not usable here"),
    }
    println!("forks on Firecracker");
    let kvm = KvmAccess::find();
    if kvm != KvmAccess::Usable {
        println!("    SKIPPED: {}", kvm.explain());
        return Ok(());
    }
    let missing = "    SKIPPED: there is no Firecracker among the assets";
    match figures(workspace, "daemon", "real_vmms", quick)? {
        Some(figures) => judge_daemon(&figures, report)?,
        None => println!("{missing}"),
    }
    match figures(workspace, "hypervisor", "real_probe", quick)? {
        Some(figures) => judge_firecracker(&figures, report)?,
        None => println!("{missing}"),
    }
    Ok(())
}

/// An order by the API's own code: records, directory, disk and log included, which a person does without.
fn judge_daemon(figures: &Value, report: &mut Report) -> anyhow::Result<()> {
    let by_hand = samples(figures, &["by_hand"])?;
    let answer = samples(figures, &["answer"])?;
    for (what, took) in [
        ("fork by the daemon → first answer, by hand", &answer),
        (
            "  until it is recorded as running",
            &samples(figures, &["whole"])?,
        ),
    ] {
        report.compare(what, "ms", took, &by_hand);
    }
    report.all_at_most("  whatever it is by hand", "ms", &answer, ANSWER_BOUND_MS);
    Ok(())
}

/// Throughput is promised for what the pager has read and checked before. What the first machine of an image waits for
/// checksums, and what unpacking costs, is shown.
fn judge_pager(figures: &Value, report: &mut Report) -> anyhow::Result<()> {
    let packed = |name: &str| samples(figures, &["packed", name]);
    let compressed = |name: &str| samples(figures, &["compressed", name]);
    let (copy, by_hand) = (packed("copy")?, packed("by_hand")?);
    let later = packed("later")?;
    report.ratio(
        "128 MiB by the pager, copy into fresh memory",
        "ms",
        &later,
        &copy,
        COPY_BOUND,
    );
    report.ratio(
        "128 MiB by the pager, UFFDIO_COPY by hand",
        "ms",
        &later,
        &by_hand,
        BY_HAND_BOUND,
    );
    for (what, samples, references) in [
        ("  with checksums, by hand", packed("first")?, by_hand),
        (
            "  compressed, by hand",
            compressed("later")?,
            compressed("by_hand")?,
        ),
        (
            "  compressed, with checksums, by hand",
            compressed("first")?,
            compressed("by_hand")?,
        ),
    ] {
        report.compare(what, "ms", &samples, &references);
    }
    report.all_at_most(
        "takeover of 8 machines",
        "ms",
        &samples(figures, &["takeover"])?,
        TAKEOVER_BOUND_MS,
    );
    Ok(())
}

fn judge_firecracker(figures: &Value, report: &mut Report) -> anyhow::Result<()> {
    report.ratio(
        "Firecracker fork → first answer, by hand",
        "ms",
        &samples(figures, &["restore", "driver"])?,
        &samples(figures, &["restore", "by_hand"])?,
        DRIVER_BOUND,
    );
    report.all_at_most(
        "  whatever it is by hand",
        "ms",
        &samples(figures, &["restore", "driver"])?,
        ANSWER_BOUND_MS,
    );
    let verify = |name: &str| samples(figures, &["verify", name, "verify"]);
    let whole = |name: &str| samples(figures, &["verify", name, "whole"]);
    for (what, name) in [
        ("16 MiB with hot pages, file", "hot"),
        ("  the same with 4 KiB for a fault, file", "uffd_4k_hot"),
        ("  the same with 2 MiB for a fault, file", "uffd_2m_hot"),
    ] {
        report.ratio(what, "ms", &verify(name)?, &verify("file")?, HOT_BOUND);
    }
    report.all_at_most(
        "  from a pager that knows none",
        "ms",
        &verify("uffd_64k")?,
        PAGED_BOUND_MS,
    );
    for (what, name, reference) in [
        ("  from a pager, 4 KiB, file", "uffd_4k", "file"),
        ("  from a pager, 64 KiB, file", "uffd_64k", "file"),
        ("  from a pager, 2 MiB, file", "uffd_2m", "file"),
        ("  compressed, plain", "compressed", "uffd_64k"),
        (
            "  compressed with hot pages, plain",
            "compressed_hot",
            "hot",
        ),
    ] {
        report.compare(what, "ms", &verify(name)?, &verify(reference)?);
    }
    for (what, name) in [
        ("Firecracker fork → 16 MiB read, pager, file", "uffd_64k"),
        ("  with hot pages, file", "hot"),
    ] {
        report.compare(what, "ms", &whole(name)?, &whole("file")?);
    }
    for (rows, vmm) in [(FIRECRACKER, "firecracker"), (QEMU, "qemu")] {
        judge_mapped(&figures["mapped"][vmm], rows, report)?;
    }
    let pss = |name: &str| samples(figures, &["pss_kib", name]);
    report.compare(
        "PSS of a fork that has read 16 MiB, pager, file",
        "KiB",
        &pss("uffd")?,
        &pss("file")?,
    );
    for (what, name) in [
        ("service of a fault below, p50", "p50_us"),
        ("service of a fault below, p99", "p99_us"),
    ] {
        let found = figures.pointer(&format!("/verify/uffd_64k/{name}"));
        let us = found.and_then(Value::as_f64).context(name)?;
        report.tell(what, "µs", &[us]);
    }
    Ok(())
}

/// What is told of forks that map the image and have hot pages: the whole where they are mapped beside the guest, what
/// reading takes where they were mapped before, its page faults, and how long the mapping takes.
type Rows = [&'static str; 4];

const FIRECRACKER: Rows = [
    "  mapped beside it, file",
    "16 MiB of a file, mapped before",
    "  page faults",
    "  the mapping",
];

const QEMU: Rows = [
    "QEMU fork → 16 MiB read, mapped beside it, file",
    "  16 MiB of a file, mapped before",
    "  page faults",
    "  the mapping",
];

fn judge_mapped(figures: &Value, rows: Rows, report: &mut Report) -> anyhow::Result<()> {
    if figures.is_null() {
        return Ok(());
    }
    let of = |way: &str, what: &str| samples(figures, &[way, what]);
    let [whole, verify, faults, entering] = rows;
    for (row, unit, way, what) in [
        (whole, "ms", "beside", "whole"),
        (verify, "ms", "before", "verify"),
        (faults, "", "before", "faults"),
    ] {
        report.compare(row, unit, &of(way, what)?, &of("file", what)?);
    }
    report.tell(entering, "ms", &of("before", "entering")?);
    Ok(())
}

fn samples(figures: &Value, path: &[&str]) -> anyhow::Result<Vec<f64>> {
    let found = figures.pointer(&format!("/{}", path.join("/")));
    let samples = found.and_then(Value::as_array);
    let samples = samples.with_context(|| format!("no {} in {figures}", path.join(".")))?;
    let number = |value: &Value| value.as_f64().context("a sample is no number");
    samples.iter().map(number).collect()
}

/// Runs the measurement in a crate's own test program; `None` if that says that it is skipped.
fn figures(
    workspace: &Workspace,
    package: &str,
    test: &str,
    quick: bool,
) -> anyhow::Result<Option<Value>> {
    let mut command = Command::new(build(workspace, package, test)?);
    command
        .arg("measure")
        .args(quick.then_some("--quick"))
        .env(ASSETS_VARIABLE, workspace.assets_dir());
    let text = process::output(&mut command)?;
    let line = text.lines().last().context("no figures")?;
    if line.starts_with("skipped: ") {
        return Ok(None);
    }
    let figures = serde_json::from_str(line).with_context(|| format!("figures {line:?}"))?;
    Ok(Some(figures))
}

/// Builds a test program, and the programs that it starts, and gives its path.
fn build(workspace: &Workspace, package: &str, test: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = process::cargo(workspace);
    cargo
        .args(["test", "--release", "--no-run", "--package", package])
        .args([
            "--test",
            test,
            "--message-format",
            "json-render-diagnostics",
        ]);
    let messages = process::output(&mut cargo)?;
    let program = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == test).then_some(())?;
        message["executable"].as_str().map(PathBuf::from)
    });
    program.with_context(|| format!("cargo does not say where {test} is"))
}
