//! Where a kernel comes from.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{BootError, files, package};

/// Where to take kernel and modules from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// The kernel for virtual machines of this host's distribution: `linux-image-cloud-amd64` on
    /// Debian, `linux-image-virtual` on Ubuntu (best effort), downloaded by apt-get and not installed.
    Debian,
    /// A kernel package that was downloaded before. It must hold image and modules, as Debian's do.
    Package(PathBuf),
    /// A kernel image and the directory of its modules.
    Files {
        /// The kernel image: a bzImage, or an ELF file that has the PVH entry if QEMU is to boot it.
        kernel: PathBuf,
        /// The tree `lib/modules/<release>` of just that kernel.
        modules_dir: PathBuf,
    },
}

/// What an installation is doing, for a progress display.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Downloads a package of this name.
    Download(String),
    /// Unpacks a package file of this name.
    Unpack(String),
    /// Reads modules and agent and writes the initrd.
    BuildInitrd,
    /// Unpacks the kernel that is in the kernel image.
    UnpackKernel,
    /// It could not be unpacked, for this reason; Firecracker cannot boot from this set.
    NoVmlinux(String),
    /// Nothing was to do: the newest set was made of the same parts.
    AlreadyInstalled,
}

/// A kernel on disk, ready to be read. Removes what it unpacked when dropped.
pub(crate) struct Kernel {
    pub image: PathBuf,
    pub modules_dir: PathBuf,
    _unpacked: Option<TempDir>,
}

/// Whatever identifies a kernel without unpacking it.
pub(crate) struct Origin {
    /// Changes whenever the kernel or its modules might.
    pub fingerprint: String,
    packages: Vec<package::Package>,
}

impl KernelSource {
    /// Finds out which kernel the source stands for. Downloads nothing.
    pub(crate) fn origin(&self) -> Result<Origin, BootError> {
        match self {
            Self::Debian => {
                let packages = package::kernel_packages()?;
                let names: Vec<_> = packages.iter().map(package::Package::fingerprint).collect();
                Ok(Origin {
                    fingerprint: names.join(" "),
                    packages,
                })
            }
            Self::Package(path) => Ok(Origin {
                fingerprint: files::sha256_file(path)?,
                packages: Vec::new(),
            }),
            Self::Files {
                kernel,
                modules_dir,
            } => {
                let builtin = modules_dir.join("modules.builtin");
                if !builtin.is_file() {
                    return Err(BootError::ModulesMissing {
                        path: modules_dir.clone(),
                    });
                }
                // Module files are not hashed: they are installed together with these two.
                let parts = [kernel, &builtin].map(|path| files::sha256_file(path));
                let [image, list] = parts;
                Ok(Origin {
                    fingerprint: format!("{} {} {}", modules_dir.display(), image?, list?),
                    packages: Vec::new(),
                })
            }
        }
    }

    /// Gets the kernel, with downloads kept in `cache_dir` and unpacked trees in `scratch_dir`.
    pub(crate) fn fetch(
        &self,
        origin: &Origin,
        cache_dir: &Path,
        scratch_dir: &Path,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Kernel, BootError> {
        match self {
            Self::Debian => {
                let mut archives = Vec::new();
                for package in &origin.packages {
                    archives.push(package.download(cache_dir, progress)?);
                }
                unpack(&archives, scratch_dir, progress)
            }
            Self::Package(path) => unpack(std::slice::from_ref(path), scratch_dir, progress),
            Self::Files {
                kernel,
                modules_dir,
            } => Ok(Kernel {
                image: kernel.clone(),
                modules_dir: modules_dir.clone(),
                _unpacked: None,
            }),
        }
    }
}

fn unpack(
    archives: &[PathBuf],
    scratch_dir: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Kernel, BootError> {
    let dir = tempfile::Builder::new()
        .prefix(package::SCRATCH_PREFIX)
        .tempdir_in(scratch_dir)
        .map_err(BootError::io("create a directory in", scratch_dir))?;
    for archive in archives {
        let name = archive
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        progress(Step::Unpack(name));
        package::unpack(archive, dir.path())?;
    }
    let described = archives.first().cloned().unwrap_or_default();
    let image = only_entry(&dir.path().join("boot"), |name| {
        name.starts_with("vmlinuz-")
    })
    .ok_or_else(|| BootError::KernelMissing {
        path: described.clone(),
    })?;
    let modules_dir = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|parent| only_entry(&dir.path().join(parent), |_| true))
        .ok_or(BootError::ModulesMissing { path: described })?;
    Ok(Kernel {
        image,
        modules_dir,
        _unpacked: Some(dir),
    })
}

/// The entry of a directory whose name fits, if there is exactly one.
fn only_entry(dir: &Path, fits: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut fitting = fs::read_dir(dir)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| fits(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path());
    let found = fitting.next()?;
    fitting.next().is_none().then_some(found)
}
