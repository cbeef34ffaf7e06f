//! The disk chain of an instance: an empty formatted disk at the bottom, frozen
//! copy-on-write overlays of earlier lives above it, one writable overlay on top. For a VMM
//! that knows no overlays it is one file: a whole copy of what it was made of, sharing blocks
//! where the file system can, and sparse elsewhere.
//!
//! All files of the chain lie in the instance's own directory, as hard links where the
//! file system allows them; only the top is ever opened for writing. Files are numbered from the bottom: `0.raw`,
//! `1.qcow2`, …

use std::fs;
use std::path::{Path, PathBuf};

use hypervisor::{DiskFile, DiskFormat, disk};
use memory::{Image, copy_sparse, link_or_copy};

use super::OpError;
use super::layout::{InstanceDir, Layout};

/// Overlays that may lie on the base before the newest is copied instead of covered
/// by another one: each further layer costs every read a look-up.
const MAX_OVERLAYS: usize = 4;

fn layer_path(dir: &Path, index: usize, format: DiskFormat) -> PathBuf {
    dir.join(match format {
        DiskFormat::Raw => format!("{index}.raw"),
        DiskFormat::Qcow2 => format!("{index}.qcow2"),
    })
}

/// Makes the disk of a new instance, in the format that its VMM writes to.
pub(super) fn fresh(
    layout: &Layout,
    dir: &InstanceDir,
    size_bytes: u64,
    format: DiskFormat,
) -> Result<(), OpError> {
    let blank = DiskFile {
        path: blank(layout, size_bytes)?,
        format: DiskFormat::Raw,
    };
    stack_on(&emptied(&dir.disk())?, &[blank], size_bytes, format)
}

/// The blank disk of a size; formatted when it is first needed.
fn blank(layout: &Layout, size_bytes: u64) -> Result<PathBuf, OpError> {
    let path = layout.blank_disk(size_bytes);
    if path.exists() {
        return Ok(path);
    }
    let parent = path.parent().unwrap_or(layout.root());
    fs::create_dir_all(parent).map_err(OpError::disk("cannot create the directory of disks"))?;
    // Two creators may format at once: each its own file, the rename decides.
    let temporary = parent.join(format!(".{}.tmp", crate::entropy::id_text()));
    let made = disk::format_ext4(&temporary, size_bytes)
        .map_err(OpError::from)
        .and_then(|()| {
            fs::rename(&temporary, &path).map_err(OpError::disk("cannot keep a blank disk"))
        });
    if made.is_err() {
        // Nothing else knows the name, and the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    made.map(|()| path)
}

/// Makes the disk of a machine that wakes from, or is forked from, `image`: its frozen
/// chain, hard-linked, and a new top. The top is of the format of the image's own: the VMM is
/// the same.
pub(super) fn from_image(dir: &InstanceDir, image: &Image) -> Result<(), OpError> {
    let disks = &image.manifest().disks;
    let layers: Vec<DiskFile> = disks
        .iter()
        .enumerate()
        .map(|(position, disk)| DiskFile {
            path: image.disk_path(position),
            format: disk.format,
        })
        .collect();
    let Some(top) = disks.last() else {
        return Err(OpError::disk("the memory image has no disk")(
            std::io::ErrorKind::InvalidData.into(),
        ));
    };
    stack_on(
        &emptied(&dir.disk())?,
        &layers,
        top.virtual_bytes,
        top.format,
    )
}

/// Makes the disk of a fork of a stopped machine whose chain lies in `source`. The
/// source's top stays writable, so it is copied, never shared.
pub(super) fn copy_of(source: &InstanceDir, dir: &InstanceDir) -> Result<(), OpError> {
    let layers = chain(source)?;
    let disk_dir = emptied(&dir.disk())?;
    let last = layers.len().saturating_sub(1);
    for (index, layer) in layers.iter().enumerate() {
        let target = layer_path(&disk_dir, index, layer.format);
        if index < last {
            link_or_copy(&layer.path, &target)?;
        } else {
            copy_sparse(&layer.path, &target).map_err(OpError::disk("cannot copy the disk"))?;
        }
    }
    Ok(())
}

/// The chain as it lies there, bottom first.
pub(super) fn chain(dir: &InstanceDir) -> Result<Vec<DiskFile>, OpError> {
    let disk_dir = dir.disk();
    let mut layers = Vec::new();
    loop {
        let found = [DiskFormat::Raw, DiskFormat::Qcow2]
            .into_iter()
            .map(|format| DiskFile {
                path: layer_path(&disk_dir, layers.len(), format),
                format,
            })
            .find(|layer| layer.path.exists());
        match found {
            Some(layer) => layers.push(layer),
            None if layers.is_empty() => {
                return Err(OpError::disk("the instance's disk is gone")(
                    std::io::ErrorKind::NotFound.into(),
                ));
            }
            None => return Ok(layers),
        }
    }
}

/// Lets a machine go on with the disk that a memory image has frozen: the image is gone, and
/// its links with it. A VMM without the rights of root could not open the disk again.
pub(super) fn thaw(dir: &InstanceDir) -> Result<(), OpError> {
    use std::os::unix::fs::PermissionsExt as _;
    let layers = chain(dir)?;
    let Some(top) = layers.last() else {
        return Ok(());
    };
    // As it was made.
    fs::set_permissions(&top.path, fs::Permissions::from_mode(0o600))
        .map_err(OpError::disk("cannot thaw the disk"))
}

/// Makes the chain survive a power failure: the names of its layers, and the bytes of
/// those that are no links.
pub(super) fn make_durable(dir: &InstanceDir) -> Result<(), OpError> {
    for layer in chain(dir)? {
        // Clean files, as links of frozen layers are, cost nothing.
        sync(&layer.path)?;
    }
    sync(&dir.disk())?;
    make_directory_durable(dir)
}

/// Makes the directory itself survive a power failure, with the directories in it.
pub(super) fn make_directory_durable(dir: &InstanceDir) -> Result<(), OpError> {
    sync(dir.root())?;
    dir.root().parent().map_or(Ok(()), sync)
}

fn sync(path: &Path) -> Result<(), OpError> {
    let synced = fs::File::open(path).and_then(|file| file.sync_all());
    synced.map_err(OpError::disk(format!("cannot sync {}", path.display())))
}

/// Makes a chain of frozen layers with something to write to on top.
fn stack_on(
    disk_dir: &Path,
    layers: &[DiskFile],
    size_bytes: u64,
    format: DiskFormat,
) -> Result<(), OpError> {
    let failed = || OpError::disk("cannot create the writable disk layer");
    if format == DiskFormat::Raw {
        let top = layer_path(disk_dir, 0, format);
        disk::extend_chain(format, layers.to_vec(), top, size_bytes).map_err(failed())?;
        return Ok(());
    }
    let copy_newest = layers.len() > MAX_OVERLAYS;
    let last = layers.len().saturating_sub(1);
    let mut below = Vec::with_capacity(layers.len());
    for (index, layer) in layers.iter().enumerate() {
        let target = layer_path(disk_dir, index, layer.format);
        if copy_newest && index == last {
            return copy_sparse(&layer.path, &target)
                .map(drop)
                .map_err(OpError::disk("cannot copy the newest disk layer"));
        }
        link_or_copy(&layer.path, &target)?;
        below.push(DiskFile {
            path: target,
            format: layer.format,
        });
    }
    let top = layer_path(disk_dir, layers.len(), format);
    disk::extend_chain(format, below, top, size_bytes).map_err(failed())?;
    Ok(())
}

fn emptied(dir: &Path) -> Result<PathBuf, OpError> {
    remove_tree(dir)?;
    fs::create_dir_all(dir).map_err(OpError::disk("cannot create the disk directory"))?;
    Ok(dir.to_owned())
}

/// Removes a memory image, finished or not. A finished one stops being one first, so
/// that a crash in between leaves no half image that looks whole.
pub(super) fn remove_image(dir: &Path) -> Result<(), OpError> {
    match Image::open(dir) {
        Ok(image) => Ok(image.remove()?),
        // Hot pages of an image lie beside it.
        Err(_) if dir.is_file() => std::fs::remove_file(dir)
            .map_err(OpError::disk(format!("cannot remove {}", dir.display()))),
        Err(_) => remove_tree(dir),
    }
}

/// Removes a directory with all it holds; one that is not there is fine.
pub(super) fn remove_tree(dir: &Path) -> Result<(), OpError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(OpError::disk(format!(
            "cannot remove {}",
            dir.display()
        ))(error)),
        _ => Ok(()),
    }
}
