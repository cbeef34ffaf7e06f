//! Debian packages: finding the kernel's, downloading and unpacking them, none of it as an
//! installation. The tools of the distribution do the work, so signatures of the archive are checked
//! as for any package of the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::kernel::Step;
use crate::{BootError, files};

/// Name prefix of temporary directories; whoever finds one that nobody uses may remove it.
pub(crate) const SCRATCH_PREFIX: &str = ".scratch-";

/// Packages that stand for "the newest kernel for virtual machines", per distribution.
const META_PACKAGES: [(&str, &str); 2] = [
    ("debian", "linux-image-cloud-amd64"),
    ("ubuntu", "linux-image-virtual"),
];

/// A package that apt can download.
pub(crate) struct Package {
    name: String,
    file_name: String,
    hash: String,
}

impl Package {
    /// Name, version and content in one line.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{} {}", self.file_name, self.hash)
    }

    /// Downloads into `cache_dir` unless it is there already, and gives the file's path.
    pub(crate) fn download(
        &self,
        cache_dir: &Path,
        progress: &mut dyn FnMut(Step),
    ) -> Result<PathBuf, BootError> {
        let target = cache_dir.join(&self.file_name);
        if target.is_file() && self.has_hash_of(&target)? {
            return Ok(target);
        }
        progress(Step::Download(self.name.clone()));
        let dir = tempfile::Builder::new()
            .prefix(SCRATCH_PREFIX)
            .tempdir_in(cache_dir)
            .map_err(BootError::io("create a directory in", cache_dir))?;
        run("apt-get", "apt", |command| {
            command
                .args(["download", "-q", &self.name])
                .current_dir(dir.path())
        })?;
        let downloaded = dir.path().join(&self.file_name);
        fs::rename(&downloaded, &target).map_err(BootError::io("rename", &downloaded))?;
        Ok(target)
    }

    /// Whether the file is the one the package lists name. Only SHA-256 is checked here; apt itself
    /// has checked whatever else the lists contain when it downloaded the file.
    fn has_hash_of(&self, file: &Path) -> Result<bool, BootError> {
        match self.hash.split_once(':') {
            Some(("SHA256", hex)) => Ok(files::sha256_file(file)? == hex),
            _ => Ok(false),
        }
    }
}

/// The packages that together hold the newest kernel image and its modules.
pub(crate) fn kernel_packages() -> Result<Vec<Package>, BootError> {
    let meta_package = meta_package();
    let unknown = || BootError::KernelPackageUnknown { meta_package };
    let image = dependencies(meta_package)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(unknown)?;
    // Debian's image package holds the modules, Ubuntu's has them in a package beside it.
    let modules = dependencies(&image)?
        .into_iter()
        .find(|name| name.starts_with("linux-modules-"));
    let mut packages = Vec::new();
    for name in std::iter::once(image).chain(modules) {
        packages.push(locate(&name)?.ok_or_else(unknown)?);
    }
    Ok(packages)
}

/// Unpacks a package's files below `dir`. No script of the package is run.
pub(crate) fn unpack(archive: &Path, dir: &Path) -> Result<(), BootError> {
    run("dpkg-deb", "dpkg", |command| {
        command.arg("-x").arg(archive).arg(dir)
    })
    .map(drop)
}

fn meta_package() -> &'static str {
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    META_PACKAGES
        .iter()
        .find(|(id, _)| os.lines().any(|line| line == format!("ID={id}")))
        .unwrap_or(&META_PACKAGES[0])
        .1
}

/// Names of the packages a package depends on, as `apt-cache depends` prints them.
fn dependencies(package: &str) -> Result<Vec<String>, BootError> {
    let output = run("apt-cache", "apt", |command| {
        command.args(["depends", "--important", package])
    })?;
    Ok(parse_depends(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_depends(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends:"))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Asks apt where a package would be downloaded from.
fn locate(name: &str) -> Result<Option<Package>, BootError> {
    let output = run("apt-get", "apt", |command| {
        command.args(["download", "-q", "--print-uris", name])
    })?;
    Ok(parse_uri(name, &String::from_utf8_lossy(&output.stdout)))
}

/// Parses `'<uri>' <file name> <size> <hash kind>:<hex>`.
fn parse_uri(name: &str, text: &str) -> Option<Package> {
    let line = text.lines().find(|line| line.starts_with('\''))?;
    let mut fields = line.split_whitespace().skip(1);
    let file_name = fields.next()?.to_owned();
    let hash = fields.nth(1)?.to_owned();
    // The name becomes part of a path.
    (!file_name.contains('/')).then_some(Package {
        name: name.to_owned(),
        file_name,
        hash,
    })
}

fn run(
    program: &'static str,
    package: &'static str,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<Output, BootError> {
    let mut command = Command::new(program);
    // Output is parsed, so it must not be translated.
    arguments(command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()));
    let output = command.output().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => BootError::ProgramMissing { program, package },
        _ => BootError::Io {
            action: "run",
            path: program.into(),
            source,
        },
    })?;
    if output.status.success() {
        return Ok(output);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = stderr.trim().lines().rev().take(3).collect();
    let stderr = tail.into_iter().rev().collect::<Vec<_>>().join("; ");
    Err(BootError::ProgramFailed { program, stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_dependencies_are_read_from_apts_listing() {
        let text = "linux-image-virtual\n  Depends: linux-image-6.8.0-31-generic\n |Depends: a\n  \
            Depends: linux-firmware\n  Conflicts: x\n";
        assert_eq!(
            parse_depends(text),
            ["linux-image-6.8.0-31-generic", "a", "linux-firmware"]
        );
    }

    #[test]
    fn the_download_address_line_gives_file_and_hash() {
        let text =
            "Get things\n'http://h/pool/l/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 12 SHA256:ab\n";
        let package = parse_uri("x", text).unwrap();
        assert_eq!(package.fingerprint(), "x_1%3a2_amd64.deb SHA256:ab");
        assert!(parse_uri("x", "").is_none());
        assert!(parse_uri("x", "'http://h/x' ../x 12 SHA256:ab").is_none());
    }
}
