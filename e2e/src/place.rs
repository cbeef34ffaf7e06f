//! What the host must have, and where tests keep their data.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::processes;

/// Set by `cargo xtask test`: kernel, initrd and images.
const ASSETS_VARIABLE: &str = "COPPICE_ASSETS";

/// Set by `cargo xtask test`: the programs as users run them.
const PROGRAMS_VARIABLE: &str = "COPPICE_BIN_DIR";

/// Begins the name of every data directory of a test; the test's process id follows.
const PREFIX: &str = "coppice-e2e-";

/// What a daemon is started with.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) coppiced: PathBuf,
    pub(crate) coppice: PathBuf,
    pub(crate) boot: PathBuf,
    pub(crate) image: PathBuf,
}

impl Place {
    /// Finds everything, or says what is missing.
    pub(crate) fn find() -> Result<Self, String> {
        let assets = directory(ASSETS_VARIABLE, |target| target.join("assets"))?;
        let programs = directory(PROGRAMS_VARIABLE, |target| target.join("debug"))?;
        let place = Self {
            coppiced: programs.join("coppiced"),
            coppice: programs.join("coppice"),
            boot: assets.join("boot"),
            image: assets.join("images/coppice-busybox.tar"),
        };
        for path in [
            &place.coppiced,
            &place.coppice,
            &place.boot.join("current"),
            &place.image,
        ] {
            if !path.exists() {
                return Err(format!(
                    "{} is missing; run: cargo xtask test",
                    path.display()
                ));
            }
        }
        for program in ["qemu-system-x86_64", "mkfs.erofs"] {
            if !on_path(program) {
                return Err(format!("{program} is not installed"));
            }
        }
        Ok(place)
    }
}

/// A directory named by a variable, or in the build directory that this program lies in.
fn directory(variable: &str, below: impl Fn(&Path) -> PathBuf) -> Result<PathBuf, String> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let program = env::current_exe().map_err(|error| error.to_string())?;
    // target/debug/deps/program
    program
        .ancestors()
        .nth(3)
        .map(below)
        .ok_or_else(|| format!("{variable} is not set"))
}

/// Whether a program is installed.
pub(crate) fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// An empty data directory. First removes those whose test was killed before it could.
pub(crate) fn data_directory() -> io::Result<tempfile::TempDir> {
    for entry in fs::read_dir(env::temp_dir())?.flatten() {
        if is_abandoned(&entry.path()) {
            processes::end_all(&entry.path());
            // Another test may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir()
}

fn is_abandoned(path: &Path) -> bool {
    path.file_name()
        .and_then(|name| name.to_str()?.strip_prefix(PREFIX)?.split_once('-'))
        .is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists())
}

/// Copies a tree, by links where possible.
pub(crate) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else if fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Gives a tree to another user; files with other links, which are shared, stay whose they are.
pub(crate) fn give(path: &Path, user: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), user)?;
        }
    } else if meta.nlink() > 1 {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(user), Some(user))
}
