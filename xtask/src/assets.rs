//! `cargo xtask assets`: everything a guest needs, for tests, demo and benchmarks.
//!
//! ```text
//! target/assets/boot/            kernel and initrd, see `boot::Assets`
//! target/assets/images/*.tar     built-in OCI images
//! target/assets/root.erofs       root disk of the busybox image, for tests below the image store
//! target/assets/coppice-agent    the static agent
//! target/assets/probe.elf        the guest of tests where no Linux guest runs
//! target/assets/firecracker/     Firecracker and its jailer
//! target/assets/nested/          a host whose KVM runs Linux, where this one has none; made for tests only
//! ```

use std::fs;
use std::path::Path;

use anyhow::Context;
use boot::{Assets, KernelSource, Step};

use crate::workspace::Workspace;
use crate::{agent, firecracker, image, probe};

/// Environment variable by which tests find the assets.
pub(crate) const ASSETS_VARIABLE: &str = "COPPICE_ASSETS";

/// Makes all assets and prints where they are, fit for `eval` by a shell.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    make(workspace)?;
    println!(
        "export {ASSETS_VARIABLE}={}",
        workspace.assets_dir().display()
    );
    Ok(())
}

/// Makes what is missing or older than its parts.
pub(crate) fn make(workspace: &Workspace) -> anyhow::Result<()> {
    let dir = workspace.assets_dir();
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let built = agent::build(workspace)?;
    let agent = dir.join("coppice-agent");
    copy_if_changed(&built, &agent)?;
    let assets = Assets::install(
        &dir.join("boot"),
        &KernelSource::Debian,
        &agent,
        &mut report,
    )?;
    eprintln!(
        "assets: kernel {} and initrd in set {}",
        assets.kernel_version, assets.id
    );
    image::make_missing(workspace)?;
    probe::make(workspace)?;
    firecracker::make(workspace);
    Ok(())
}

fn report(step: Step) {
    match step {
        Step::Download(package) => eprintln!("assets: downloading {package}"),
        Step::Unpack(file) => eprintln!("assets: unpacking {file}"),
        Step::BuildInitrd => eprintln!("assets: building the initrd"),
        Step::NoVmlinux(why) => eprintln!("assets: no kernel for Firecracker: {why}"),
        _ => {}
    }
}

/// Copies by way of a temporary file, so that a program running from `to` is left alone.
fn copy_if_changed(from: &Path, to: &Path) -> anyhow::Result<()> {
    let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let fresh = to.with_extension("new");
    fs::copy(from, &fresh)
        .and_then(|_| fs::rename(&fresh, to))
        .with_context(|| format!("write {}", to.display()))
}
