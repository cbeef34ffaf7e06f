//! Sets of boot assets in a directory.
//!
//! ```text
//! <dir>/current -> <id>          the set to boot new machines from
//! <dir>/<id>/kernel              } read-only, never changed
//! <dir>/<id>/vmlinux             } the kernel uncompressed, if it could be unpacked
//! <dir>/<id>/initrd              }
//! <dir>/<id>/assets.json         what they are; written before the directory gets its name
//! <dir>/packages/                downloaded kernel packages
//! <dir>/.lock                    held while a set is made
//! ```
//!
//! Called by the daemon at start-up, by `coppice setup` and by xtask. Removing sets that no machine
//! uses any more is left to the caller, who knows the machines.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::kernel::{KernelSource, Step};
use crate::modules::ModuleTree;
use crate::package::SCRATCH_PREFIX;
use crate::{BootError, files, initrd, vmlinux};

/// Changes when the same parts would make another set, so that old ones are made anew.
const RECIPE_VERSION: u32 = 2;

/// Hexadecimal digits of a set's name: 64 bits tell the handful of sets of a host apart.
const ID_LENGTH: usize = 16;

const CURRENT: &str = "current";
const RECORD: &str = "assets.json";

const KERNEL: &str = "kernel";
const VMLINUX: &str = "vmlinux";
const INITRD: &str = "initrd";

/// Why a set made before there was such a file has none.
const OLD_SET: &str = "it was made by an older version, run `coppice setup`";

/// Name of a set: the beginning of a hash over its files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AssetsId(String);

impl AssetsId {
    /// Reads back what `Display` wrote. `None` if the text cannot be the name of a set.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_name.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for AssetsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kernel and the initrd that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// Name of the set; machines record it to boot from the same files later.
    pub id: AssetsId,
    /// The kernel image (bzImage).
    pub kernel: PathBuf,
    vmlinux: Result<PathBuf, String>,
    /// The initrd.
    pub initrd: PathBuf,
    /// Release of the kernel, such as `6.1.0-13-cloud-amd64`.
    pub kernel_version: String,
    /// SHA-256 of the kernel image in hexadecimal.
    pub kernel_sha256: String,
    /// SHA-256 of the initrd in hexadecimal.
    pub initrd_sha256: String,
}

impl Assets {
    /// Makes a set from the kernel of `source` and the agent at `agent` (a static program), and makes
    /// it the current one of `dir`, which is created if need be.
    ///
    /// Does nothing when the current set was made of the same parts. A crash leaves the former set
    /// current. Blocks for seconds, and for as long as another process installs into the same
    /// directory.
    pub fn install(
        dir: &Path,
        source: &KernelSource,
        agent: &Path,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Self, BootError> {
        let packages = dir.join("packages");
        fs::create_dir_all(&packages).map_err(BootError::io("create", &packages))?;
        let _lock = lock(dir)?;
        remove_leftovers(dir)?;
        remove_leftovers(&packages)?;

        let origin = source.origin()?;
        let agent_bytes = files::read(agent)?;
        let agent_sha256 = files::sha256_bytes(&agent_bytes);
        let recipe = format!("{RECIPE_VERSION} {} {agent_sha256}", origin.fingerprint);
        if let Some(assets) = current_with_recipe(dir, &recipe) {
            progress(Step::AlreadyInstalled);
            return Ok(assets);
        }

        let kernel = source.fetch(&origin, &packages, dir, progress)?;
        progress(Step::BuildInitrd);
        let tree = ModuleTree::open(&kernel.modules_dir)?;
        let modules = tree.load_wanted()?;
        let initrd = initrd::build(&agent_bytes, &modules)
            .map_err(BootError::io("build an initrd with", agent))?;
        let image = files::read(&kernel.image)?;
        progress(Step::UnpackKernel);
        let vmlinux = vmlinux::extract(&image).map_err(|error| error.to_string());
        if let Err(reason) = &vmlinux {
            progress(Step::NoVmlinux(reason.clone()));
        }
        let parts = Parts {
            kernel_version: tree.kernel_version().to_owned(),
            kernel: image,
            vmlinux,
            initrd,
            recipe,
        };
        let id = parts.store(dir)?;
        make_current(dir, &id)?;
        Self::open_set(dir, &id)
    }

    /// Opens the current set of a directory.
    ///
    /// Files are compared with what was installed: by size and time stamps, and by content only when
    /// the time stamps differ.
    pub fn open(dir: &Path) -> Result<Self, BootError> {
        let link = dir.join(CURRENT);
        let target = fs::read_link(&link).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => BootError::NotInstalled { path: dir.into() },
            _ => BootError::Io {
                action: "read",
                path: link,
                source,
            },
        })?;
        let id = target.to_str().and_then(AssetsId::parse);
        Self::open_set(
            dir,
            &id.ok_or_else(|| BootError::NotInstalled { path: dir.into() })?,
        )
    }

    /// Opens a certain set of a directory, checked as in [`Assets::open`].
    pub fn open_set(dir: &Path, id: &AssetsId) -> Result<Self, BootError> {
        let set_dir = dir.join(&id.0);
        let record = Record::read(&set_dir)?;
        let [kernel, initrd] = [KERNEL, INITRD].map(|name| set_dir.join(name));
        record.kernel.check(&kernel)?;
        record.initrd.check(&initrd)?;
        Ok(Self {
            id: id.clone(),
            kernel,
            vmlinux: record.vmlinux.open(&set_dir)?,
            initrd,
            kernel_version: record.kernel_version,
            kernel_sha256: record.kernel.sha256,
            initrd_sha256: record.initrd.sha256,
        })
    }

    /// The same kernel as an uncompressed ELF file, which is what Firecracker boots.
    ///
    /// # Errors
    /// [`BootError::NoVmlinux`] says why there is none: the kernel was given by a user and is packed in
    /// a way that is not known here, or the set was made by an older version.
    pub fn vmlinux(&self) -> Result<&Path, BootError> {
        match &self.vmlinux {
            Ok(path) => Ok(path),
            Err(reason) => Err(BootError::NoVmlinux {
                id: self.id.clone(),
                reason: reason.clone(),
            }),
        }
    }
}

/// What a set is made of, still in memory.
struct Parts {
    kernel_version: String,
    kernel: Vec<u8>,
    vmlinux: Result<Vec<u8>, String>,
    initrd: Vec<u8>,
    recipe: String,
}

impl Parts {
    /// Writes the set's directory, complete and durable before it has its name.
    fn store(self, dir: &Path) -> Result<AssetsId, BootError> {
        let content = [&self.kernel, &self.initrd].map(|bytes| files::sha256_bytes(bytes));
        let mut id = files::sha256_bytes(content.concat().as_bytes());
        id.truncate(ID_LENGTH);

        let scratch = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .tempdir_in(dir)
            .map_err(BootError::io("create a directory in", dir))?;
        let [kernel_sha256, initrd_sha256] = content;
        let write = |name: &str, bytes: &[u8], sha256: String| {
            let path = scratch.path().join(name);
            files::write_finished(&path, bytes)?;
            FileRecord::of(&path, sha256)
        };
        let vmlinux = match &self.vmlinux {
            Ok(bytes) => VmlinuxRecord::File(write(VMLINUX, bytes, files::sha256_bytes(bytes))?),
            Err(reason) => VmlinuxRecord::Absent(reason.clone()),
        };
        let record = Record {
            kernel: write(KERNEL, &self.kernel, kernel_sha256)?,
            vmlinux,
            initrd: write(INITRD, &self.initrd, initrd_sha256)?,
            kernel_version: self.kernel_version,
            recipe: self.recipe,
        };
        record.write(scratch.path())?;
        files::sync_dir(scratch.path())?;

        // Whatever user the machines run as must be able to read its kernel.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))
            .map_err(BootError::io("open up", scratch.path()))?;

        let target = dir.join(&id);
        if target.exists() {
            // Same content from another recipe, or a damaged set: the new one takes its place.
            fs::remove_dir_all(&target).map_err(BootError::io("remove", &target))?;
        }
        let scratch = scratch.keep();
        fs::rename(&scratch, &target).map_err(BootError::io("rename", &scratch))?;
        files::sync_dir(dir)?;
        Ok(AssetsId(id))
    }
}

/// The file `assets.json` of a set.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    kernel_version: String,
    recipe: String,
    kernel: FileRecord,
    #[serde(default)]
    vmlinux: VmlinuxRecord,
    initrd: FileRecord,
}

/// The uncompressed kernel of a set, or why it has none.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VmlinuxRecord {
    File(FileRecord),
    Absent(String),
}

impl Default for VmlinuxRecord {
    fn default() -> Self {
        Self::Absent(OLD_SET.to_owned())
    }
}

impl VmlinuxRecord {
    fn open(self, set_dir: &Path) -> Result<Result<PathBuf, String>, BootError> {
        match self {
            Self::File(record) => {
                let path = set_dir.join(VMLINUX);
                record.check(&path)?;
                Ok(Ok(path))
            }
            Self::Absent(reason) => Ok(Err(reason)),
        }
    }
}

impl Record {
    fn read(set_dir: &Path) -> Result<Self, BootError> {
        let path = set_dir.join(RECORD);
        let bytes = files::read(&path)?;
        serde_json::from_slice(&bytes).map_err(|source| BootError::RecordDamaged { path, source })
    }

    fn write(&self, set_dir: &Path) -> Result<(), BootError> {
        let path = set_dir.join(RECORD);
        match serde_json::to_vec_pretty(self) {
            Ok(bytes) => files::write_finished(&path, &bytes),
            Err(source) => Err(BootError::RecordDamaged { path, source }),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRecord {
    sha256: String,
    size_bytes: u64,
    /// Seconds and nanoseconds of the last change of content.
    modified: (i64, i64),
}

impl FileRecord {
    fn of(path: &Path, sha256: String) -> Result<Self, BootError> {
        let meta = fs::metadata(path).map_err(BootError::io("inspect", path))?;
        Ok(Self {
            sha256,
            size_bytes: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    fn check(&self, path: &Path) -> Result<(), BootError> {
        let meta = fs::metadata(path).map_err(BootError::io("inspect", path))?;
        let same_size = meta.size() == self.size_bytes;
        let same_time = (meta.mtime(), meta.mtime_nsec()) == self.modified;
        // A copied data directory has other time stamps, hence the second look.
        if same_size && (same_time || files::sha256_file(path)? == self.sha256) {
            return Ok(());
        }
        Err(BootError::Changed {
            path: path.into(),
            expected: self.sha256.clone(),
        })
    }
}

fn current_with_recipe(dir: &Path, recipe: &str) -> Option<Assets> {
    let assets = Assets::open(dir).ok()?;
    let record = Record::read(&dir.join(&assets.id.0)).ok()?;
    (record.recipe == recipe).then_some(assets)
}

/// Points the `current` link to a set, in one step.
fn make_current(dir: &Path, id: &AssetsId) -> Result<(), BootError> {
    let fresh = dir.join(format!("{SCRATCH_PREFIX}link"));
    let _ = fs::remove_file(&fresh);
    std::os::unix::fs::symlink(&id.0, &fresh).map_err(BootError::io("create", &fresh))?;
    fs::rename(&fresh, dir.join(CURRENT)).map_err(BootError::io("rename", &fresh))?;
    files::sync_dir(dir)
}

/// Takes the lock that keeps two installations apart. Released when the file is closed.
fn lock(dir: &Path) -> Result<File, BootError> {
    let path = dir.join(".lock");
    let file = File::create(&path).map_err(BootError::io("create", &path))?;
    file.lock().map_err(BootError::io("lock", &path))?;
    Ok(file)
}

/// Removes what a crashed installation left behind. Only with the lock held.
fn remove_leftovers(dir: &Path) -> Result<(), BootError> {
    for entry in fs::read_dir(dir).map_err(BootError::io("list", dir))? {
        let entry = entry.map_err(BootError::io("list", dir))?;
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(SCRATCH_PREFIX)
        {
            continue;
        }
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_dir {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(BootError::io("remove", &path))?;
    }
    Ok(())
}
