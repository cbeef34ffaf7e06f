//! Debian packages, downloaded and unpacked without being installed.
//!
//! The tools of the distribution do the work, so signatures of the archive are checked as for any
//! package of the host. Guest kernels come from here, and the parts of the built-in images.

use std::collections::BTreeMap;
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
#[derive(Debug)]
pub struct Package {
    name: String,
    file_name: String,
    hash: String,
}

impl Package {
    /// Asks apt for the packages of these names, in the versions it would install, in the same order.
    /// Fails if the host's package lists lack one of them.
    pub fn locate(names: &[&str]) -> Result<Vec<Self>, BootError> {
        let output = run("apt-get", "apt", |command| {
            command.args(["download", "-q", "--print-uris"]).args(names)
        })?;
        let text = String::from_utf8_lossy(&output.stdout);
        let mut located: Vec<_> = text.lines().filter_map(parse_uri).collect();
        let missing = names
            .iter()
            .find(|name| located.iter().all(|found| found.name != **name));
        if let Some(name) = missing {
            return Err(BootError::PackageUnknown {
                name: (*name).into(),
            });
        }
        located.sort_by_key(|found| names.iter().position(|name| *name == found.name));
        Ok(located)
    }

    /// Name, version and content in one line.
    pub(crate) fn fingerprint(&self) -> String {
        format!("{} {}", self.file_name, self.hash)
    }

    /// Downloads into `cache_dir` unless it is there already, and gives the file's path.
    pub fn download(
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
    let graph = dependency_graph(&[meta_package])?;
    let dependency = |package: &str, prefix: &str| {
        graph
            .get(package)?
            .iter()
            .find(|name| name.starts_with(prefix))
    };
    let image = dependency(meta_package, "linux-image-").ok_or_else(unknown)?;
    // Debian's image package holds the modules, Ubuntu's has them in a package beside it.
    let modules = dependency(image, "linux-modules-");
    let names: Vec<_> = std::iter::once(image)
        .chain(modules)
        .map(String::as_str)
        .collect();
    Package::locate(&names)
}

/// Unpacks a package's files below `dir`. No script of the package is run.
pub fn unpack(archive: &Path, dir: &Path) -> Result<(), BootError> {
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

/// Direct dependencies of packages, and of all packages these lead to.
pub fn dependency_graph(roots: &[&str]) -> Result<BTreeMap<String, Vec<String>>, BootError> {
    let output = run("apt-cache", "apt", |command| {
        command
            .args(["depends", "--recurse", "--important"])
            .args(roots)
    })?;
    Ok(parse_depends(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses apt's listing: a package at the beginning of a line, what it depends on in the lines after.
fn parse_depends(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut graph: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut package = String::new();
    for line in text.lines() {
        if !line.starts_with([' ', '|']) {
            package = line.trim().to_owned();
            graph.entry(package.clone()).or_default();
            continue;
        }
        let relation = line.trim_start_matches([' ', '|']);
        let name = relation
            .strip_prefix("Depends:")
            .or_else(|| relation.strip_prefix("PreDepends:"));
        if let Some(name) = name {
            graph
                .entry(package.clone())
                .or_default()
                .push(name.trim().to_owned());
        }
    }
    graph
}

/// Parses `'<uri>' <file name> <size> <hash kind>:<hex>`. File names begin with the package's name.
fn parse_uri(line: &str) -> Option<Package> {
    let mut fields = line.strip_prefix('\'')?.split_whitespace().skip(1);
    let file_name = fields.next()?.to_owned();
    let hash = fields.nth(1)?.to_owned();
    let name = file_name.split('_').next()?.to_owned();
    // The name becomes part of a path.
    (!file_name.contains('/')).then_some(Package {
        name,
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
    fn dependencies_are_read_from_apts_listing() {
        let text = "python3\n |Depends: a\n  Depends: <virtual>\n    provider\n  PreDepends: b\n\
            b\n  Depends: c\n  Conflicts: d\nc\n";
        let graph = parse_depends(text);
        let of = |name: &str| graph[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(of("python3"), ["a", "<virtual>", "b"]);
        assert_eq!(of("b"), ["c"]);
        assert!(of("c").is_empty());
    }

    #[test]
    fn the_download_address_line_gives_file_and_hash() {
        let package =
            parse_uri("'http://h/x_1%3a2_amd64.deb' x_1%3a2_amd64.deb 12 SHA256:ab").unwrap();
        assert_eq!(package.name, "x");
        assert_eq!(package.fingerprint(), "x_1%3a2_amd64.deb SHA256:ab");
        assert!(parse_uri("Reading package lists").is_none());
        assert!(parse_uri("'http://h/x' ../x 12 SHA256:ab").is_none());
    }
}
