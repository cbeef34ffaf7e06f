//! The image `coppice-python`: Debian's Python with its standard library, for real workloads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::archive::Image;
use super::busybox;
use super::layer::LayerBuilder;
use super::packages::{self, PackageCache};
use crate::process;

pub(crate) const NAME: &str = "coppice-python";

const ROOTS: [&str; 3] = ["python3-minimal", "libpython3-stdlib", "libc-bin"];

/// Dependencies (by beginning of the name) that a Python program never notices: packages of the
/// package manager, NIS support with its Kerberos libraries, and descriptions of file types.
const LEFT_OUT: [&str; 13] = [
    "debconf",
    "dpkg",
    "install-info",
    "libgssapi",
    "libnsl2",
    "libselinux1",
    "libtirpc",
    "mailcap",
    "media-types",
    "mime-support",
    "perl",
    "readline-common",
    "tar",
];

/// Parts of packages that only people at a desk read, and Python's own tests.
const UNREAD: [&str; 8] = [
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/share/applications",
];

/// The image: the busybox base with the packages of Python over it.
pub(crate) fn image(packages: &PackageCache) -> anyhow::Result<Image> {
    let unpacked = tempfile::tempdir()?;
    let names = packages::closure(&ROOTS, &LEFT_OUT)?;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    packages.unpack(&names, unpacked.path())?;
    compile_library(unpacked.path())?;
    let mut layer = LayerBuilder::new();
    layer.tree(unpacked.path(), &|path| {
        !UNREAD.iter().any(|unread| path.starts_with(unread))
    })?;
    Ok(Image {
        name: NAME,
        cmd: vec!["sleep", "infinity"],
        layers: vec![busybox::base_layer(packages)?, layer.finish()?],
    })
}

/// Compiles the standard library with the unpacked Python itself. Packages do this when they are
/// installed; without it every start of Python in a guest would compile dozens of modules. Compiled
/// files name the hash of their source instead of its time stamp, so they are the same every time.
fn compile_library(root: &Path) -> anyhow::Result<()> {
    let loader = first_existing(root, &["lib64", "usr/lib64"], "ld-linux-x86-64.so.2")?;
    let libraries = ["lib", "usr/lib"].map(|dir| root.join(dir).join("x86_64-linux-gnu"));
    let search = libraries.map(|dir| dir.display().to_string()).join(":");
    let library = only_library(root)?;
    let version = library.file_name().unwrap_or_default();
    process::output(
        Command::new(loader)
            .arg("--library-path")
            .arg(search)
            .arg(root.join("usr/bin").join(version))
            .args(["-S", "-m", "compileall", "-q", "-j", "0"])
            .args(["--invalidation-mode", "unchecked-hash"])
            .args(["-x", "lib2to3/tests|/test/", "-d"])
            .arg(Path::new("/usr/lib").join(version))
            .arg(&library)
            .env("PYTHONHOME", root.join("usr"))
            .env("PYTHONDONTWRITEBYTECODE", "1"),
    )
    .context("compile Python's library")
    .map(drop)
}

/// The directory `usr/lib/python3.<minor>`.
fn only_library(root: &Path) -> anyhow::Result<PathBuf> {
    let dir = root.join("usr/lib");
    let is_library = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("python3.")
    };
    fs::read_dir(&dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(is_library)
        .with_context(|| format!("no Python library in {}", dir.display()))
}

/// The file behind `name` in one of the directories. Absolute links lead to the host's own files, so
/// only the name is followed, into the library directory beside it.
fn first_existing(root: &Path, dirs: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let places = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];
    places
        .iter()
        .chain(dirs)
        .map(|dir| root.join(dir).join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} is in none of the unpacked packages"))
}
