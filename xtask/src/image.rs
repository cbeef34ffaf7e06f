//! `cargo xtask image`: the built-in images, made from Debian packages so that nothing need be pulled.
//!
//! They are ordinary OCI archives and go through the ordinary import. The same packages always give
//! the same bytes.

mod archive;
mod busybox;
mod layer;
mod packages;
mod python;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::process;
use crate::workspace::Workspace;
use archive::Image;
pub(crate) use packages::PackageCache;

pub(crate) use layer::sha256;

/// Makes every built-in image in the directory `out`.
pub(crate) fn run(workspace: &Workspace, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let packages = PackageCache::new(workspace)?;
    for image in [busybox::image(&packages)?, python::image(&packages)?] {
        let path = out.join(image.file_name());
        write_whole(&path, &image.to_oci_archive()?)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// Makes the images and the test root disk of the assets directory unless they are there.
pub(crate) fn make_missing(workspace: &Workspace) -> anyhow::Result<()> {
    let dir = workspace.assets_dir();
    let images = dir.join("images");
    let recipe = dir.join("images.recipe");
    let root_disk = dir.join("root.erofs");
    let complete = [busybox::NAME, python::NAME]
        .iter()
        .all(|name| images.join(archive::file_name(name)).is_file())
        && root_disk.is_file();
    let wanted = recipe_fingerprint();
    if complete && fs::read_to_string(&recipe).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    eprintln!("assets: making the built-in images");
    run(workspace, &images)?;
    let packages = PackageCache::new(workspace)?;
    make_root_disk(&busybox::image(&packages)?, &root_disk)?;
    write_whole(&recipe, wanted.as_bytes())
}

/// Changes with the code that makes images, so that a changed recipe makes them anew. New package
/// versions alone do not: tests want the same image from one run to the next.
fn recipe_fingerprint() -> String {
    let sources = [
        include_str!("image/archive.rs"),
        include_str!("image/busybox.rs"),
        include_str!("image/layer.rs"),
        include_str!("image/packages.rs"),
        include_str!("image/python.rs"),
    ];
    layer::sha256(sources.concat().as_bytes())
}

/// Makes an erofs from the layers of an image without going through the image store, which is under
/// test itself. Layers of built-in images delete nothing, so they are unpacked one over the other.
fn make_root_disk(image: &Image, to: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    for layer in &image.layers {
        let mut archive = tar::Archive::new(layer.tar.as_slice());
        archive.set_preserve_permissions(true);
        archive
            .unpack(dir.path())
            .context("unpack a built-in layer")?;
    }
    let Some(mkfs) = process::find_program("mkfs.erofs") else {
        bail!("mkfs.erofs is missing, run `cargo xtask setup-host`");
    };
    let fresh = to.with_extension("new");
    let uuid = "-U00000000-0000-0000-0000-000000000000";
    process::output(
        Command::new(mkfs)
            .args(["--quiet", "-zlz4", "-T0", "--all-root", uuid])
            .arg(&fresh)
            .arg(dir.path())
            .stdin(Stdio::null()),
    )?;
    fs::rename(&fresh, to).with_context(|| format!("rename {}", fresh.display()))
}

/// Writes a file so that it is there either whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("write {}", path.display()))
}
