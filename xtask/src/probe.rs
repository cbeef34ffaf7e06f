//! The probe guest of the tests on real VMMs, compiled to a flat ELF file.
//!
//! It is no crate: it has no host to be built for, only the compiler and a linker script of its own.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::Context;

use crate::process;
use crate::workspace::Workspace;

/// Its sources, relative to the checkout; the first file is `guest.rs`.
const SOURCES: &str = "crates/hypervisor/tests/support/probe";

/// Compiled for the host's kind of target: its core library needs no operating system.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes `probe.elf` in the assets directory if it is missing or older than a source.
pub(crate) fn make(workspace: &Workspace) -> anyhow::Result<()> {
    let sources = workspace.root.join(SOURCES);
    let target = workspace.assets_dir().join("probe.elf");
    let built = fs::metadata(&target).and_then(|metadata| metadata.modified());
    if built.is_ok_and(|built| newest(&sources).is_ok_and(|changed| changed < built)) {
        return Ok(());
    }
    eprintln!("assets: compiling the probe guest");
    let fresh = target.with_extension("new");
    let mut script = std::ffi::OsString::from("link-arg=-T");
    script.push(sources.join("guest.ld"));
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition", "2024", "--crate-name", "probe", "-O"])
        .args(["--target", TARGET])
        .args(["-C", "panic=abort", "-C", "relocation-model=static"])
        .args(["-C", "strip=symbols", "-C", "default-linker-libraries=no"])
        .args(["-C", "link-args=-nostdlib -nostartfiles -static -no-pie"])
        .args([
            "-C",
            "link-args=-Wl,--build-id=none -Wl,-z,max-page-size=4096",
        ])
        .arg("-C")
        .arg(script)
        .arg("-o")
        .arg(&fresh)
        .arg(sources.join("guest.rs"))
        .stdin(Stdio::null());
    process::run(&mut rustc)?;
    fs::rename(&fresh, &target).with_context(|| format!("rename {}", fresh.display()))
}

fn newest(dir: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir)? {
        newest = newest.max(entry?.metadata()?.modified()?);
    }
    Ok(newest)
}
