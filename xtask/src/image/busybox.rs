//! The image `coppice-busybox`: one static program under 270 names, for demo and tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use super::archive::Image;
use super::layer::{LayerBlob, LayerBuilder};
use super::packages::PackageCache;
use crate::process;

pub(crate) const NAME: &str = "coppice-busybox";

const DIRECTORIES: [(&str, u32); 24] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/coppice", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/local", 0o755),
    ("usr/local/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
];

const FILES: [(&str, &str); 6] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\n\
         daemon:x:1:1:daemon:/:/usr/sbin/nologin\n\
         coppice:x:1000:1000:an ordinary user:/home/coppice:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\ndaemon:x:1:\ntty:x:5:\ndisk:x:6:coppice\ncoppice:x:1000:\nnogroup:x:65534:\n",
    ),
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\n",
    ),
    ("etc/profile", "export PS1='\\h:\\w\\$ '\n"),
    (
        "etc/os-release",
        "ID=coppice-busybox\nNAME=\"coppice built-in image\"\n",
    ),
];

/// The image. Its program sleeps: an idle guest should not touch its memory.
pub(crate) fn image(packages: &PackageCache) -> anyhow::Result<Image> {
    Ok(Image {
        name: NAME,
        cmd: vec!["sleep", "infinity"],
        layers: vec![base_layer(packages)?],
    })
}

/// The layer that other built-in images stand on, too.
pub(crate) fn base_layer(packages: &PackageCache) -> anyhow::Result<LayerBlob> {
    let unpacked = tempfile::tempdir()?;
    packages.unpack(&["busybox-static"], unpacked.path())?;
    let program = find_busybox(unpacked.path())?;

    let mut layer = LayerBuilder::new();
    for (path, mode) in DIRECTORIES {
        layer.directory(path, mode)?;
    }
    layer.directory("home/coppice", 0o755)?;
    for merged in ["bin", "lib", "lib64", "sbin"] {
        layer.link(merged, &Path::new("usr").join(merged))?;
    }
    for (path, text) in FILES {
        layer.file(path, 0o644, text.as_bytes())?;
    }
    layer.file("usr/bin/busybox", 0o755, &fs::read(&program)?)?;
    let applets = process::output(Command::new(&program).arg("--list-full"))?;
    for applet in applets.lines() {
        let name = applet.rsplit('/').next().unwrap_or(applet);
        if name == "busybox" {
            continue;
        }
        let dir = if applet.contains("sbin/") {
            "usr/sbin"
        } else {
            "usr/bin"
        };
        layer.link(&format!("{dir}/{name}"), Path::new("/usr/bin/busybox"))?;
    }
    layer.finish()
}

fn find_busybox(unpacked: &Path) -> anyhow::Result<PathBuf> {
    ["bin/busybox", "usr/bin/busybox"]
        .iter()
        .map(|place| unpacked.join(place))
        .find(|path| path.is_file())
        .context("busybox-static holds no busybox")
}
