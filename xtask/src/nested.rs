//! Kernel and initrd of the nested host, in which tests find a KVM that runs Linux.
//!
//! The kernel is the distribution's for real machines: the one for virtual machines, which guests boot, is built without
//! KVM. Neither is installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use boot::package::{self, Package};
use boot::{Archive, ModuleTree};

use crate::image::{PackageCache, sha256};
use crate::workspace::Workspace;

/// Depends on the newest kernel.
const META_PACKAGE: &str = "linux-image-amd64";

/// For the init.
const BUSYBOX: &str = "busybox-static";

/// The first program, which busybox runs.
const INIT: &str = include_str!("../../nested/src/init.sh");

/// KVM for processors as QEMU emulates them; the disk of the host below; what the network of machines is made of.
const MODULES: [&str; 23] = [
    "kvm_amd",
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "tun",
    "veth",
    "crc32c_generic",
    "nf_tables",
    "nf_conntrack_netlink",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_redir",
    "nft_ct",
    "nft_fib_inet",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_limit",
    "nft_log",
    "tcp_diag",
    "loop",
];

/// Makes `nested/` in the assets directory. A host that cannot is told so, and the tests that need one say that they are
/// skipped.
pub(crate) fn make(workspace: &Workspace) {
    if let Err(error) = try_make(workspace) {
        eprintln!("assets: no nested host, tests in it will be skipped: {error:#}");
    }
}

fn try_make(workspace: &Workspace) -> anyhow::Result<()> {
    let dir = workspace.assets_dir().join("nested");
    let graph = package::dependency_graph(&[META_PACKAGE])?;
    let kernel = graph
        .get(META_PACKAGE)
        .and_then(|needed| needed.iter().find(|name| name.starts_with("linux-image-")))
        .with_context(|| format!("no kernel behind {META_PACKAGE}; run: apt-get update"))?;
    let packages = [kernel.as_str(), BUSYBOX];
    let located = Package::locate(&packages)?;
    let recipe = sha256(format!("{located:?} {MODULES:?} {INIT}").as_bytes());
    let recipe_file = dir.join("recipe");
    if fs::read_to_string(&recipe_file).is_ok_and(|made| made == recipe) {
        return Ok(());
    }
    eprintln!("assets: making the nested host from {kernel}");
    let scratch = tempfile::tempdir_in(&workspace.target_dir)?;
    PackageCache::new(workspace)?.unpack(&packages, scratch.path())?;
    let image = only_entry(&scratch.path().join("boot"), "vmlinuz-")?;
    let tree = ModuleTree::open(&only_entry(&scratch.path().join("lib/modules"), "")?)?;
    let busybox = scratch.path().join("bin/busybox");
    let initrd = initrd(&tree, &fs::read(&busybox)?)?;
    let _ = fs::remove_file(&recipe_file);
    fs::create_dir_all(&dir)?;
    fs::copy(&image, dir.join("kernel"))?;
    fs::write(dir.join("initrd"), initrd)?;
    fs::write(recipe_file, recipe)?;
    Ok(())
}

fn initrd(tree: &ModuleTree, busybox: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "sys", "modules"] {
        archive.add_directory(dir)?;
    }
    archive.add_file("init", 0o755, INIT.as_bytes())?;
    archive.add_file("bin/busybox", 0o755, busybox)?;
    archive.add_modules("modules/order", &tree.load(&MODULES)?)?;
    Ok(archive.finish()?)
}

fn only_entry(dir: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))?;
    let mut fitting = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path());
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        _ => bail!("not one {prefix}* in {}", dir.display()),
    }
}
