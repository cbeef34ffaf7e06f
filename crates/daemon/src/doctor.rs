//! `coppiced doctor`: what this host has, what it lacks, and how to get it.

mod edge;
mod firecracker;
mod network;
mod pagers;

use std::path::{Path, PathBuf};

use anyhow::Result;
use hypervisor::qemu::{KvmVerdict, probe};
use serde::Serialize;

use crate::app::{boot_files, qemu_config};
use crate::config::{Config, Hypervisor};
use crate::instances::{BootFiles, Layout, chain};

/// Free space below which images and memory images soon do not fit.
const LOW_SPACE: u64 = 5 << 30;

/// How a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, but not as well as it could.
    Warning,
    /// Instances cannot run.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// How it matters.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// How to mend it.
    pub remedy: Option<String>,
}

/// Looks at everything that instances need. Changes nothing but the remembered verdict
/// about KVM.
pub async fn examine(config: &Config) -> Result<Vec<Finding>> {
    let layout = Layout::new(&config.data_dir);
    let boot = boot_files(config, &layout);
    let mut findings = vec![privileges(), space(&config.data_dir)];
    let files = boot.as_ref().ok();
    match probe(&qemu_config(config, &layout, files)?).await {
        Ok(report) => {
            findings.push(ok(
                "qemu",
                format!("{} {}", report.qemu.display(), report.version),
            ));
            findings.push(Finding {
                what: "kvm",
                grade: if report.kvm == KvmVerdict::Usable {
                    Grade::Ok
                } else {
                    Grade::Warning
                },
                found: report.kvm.explain(),
                remedy: None,
            });
        }
        Err(error) => findings.push(lacking(
            "qemu",
            chain(&error),
            "apt-get install qemu-system-x86",
            config.hypervisor == Hypervisor::Qemu,
        )),
    }
    findings.extend(firecracker::examine(config, &layout, files).await);
    findings.extend(pagers::examine(config).await);
    findings.push(tool("mkfs.erofs", "erofs-utils"));
    findings.push(tool("mkfs.ext4", "e2fsprogs"));
    findings.push(kernel(boot, config.boot.is_some()));
    findings.extend(network::examine(config, &layout).await);
    Ok(findings)
}

fn kernel(boot: Result<BootFiles>, configured: bool) -> Finding {
    match boot {
        Ok(files) => ok("guest kernel", files.kernel.display().to_string()),
        Err(error) => missing(
            "guest kernel",
            format!("{error:#}"),
            if configured {
                "correct kernel and initrd in the configuration, or leave them out and run: coppice setup"
            } else {
                "coppice setup"
            },
        ),
    }
}

/// Whether instances can run.
#[must_use]
pub fn healthy(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.grade != Grade::Missing)
}

fn ok(what: &'static str, found: String) -> Finding {
    Finding {
        what,
        grade: Grade::Ok,
        found,
        remedy: None,
    }
}

fn warning(what: &'static str, found: String, remedy: &str) -> Finding {
    Finding {
        what,
        grade: Grade::Warning,
        found,
        remedy: Some(remedy.to_owned()),
    }
}

fn missing(what: &'static str, found: String, remedy: &str) -> Finding {
    Finding {
        what,
        grade: Grade::Missing,
        found,
        remedy: Some(remedy.to_owned()),
    }
}

/// As [`missing`] if instances need it, else a warning.
fn lacking(what: &'static str, found: String, remedy: &str, needed: bool) -> Finding {
    if needed {
        missing(what, found, remedy)
    } else {
        warning(what, found, remedy)
    }
}

fn privileges() -> Finding {
    if rustix::process::geteuid().is_root() {
        ok("user", "root".to_owned())
    } else {
        warning(
            "user",
            "not root: images cannot be imported, since unpacking must keep the owners of files"
                .to_owned(),
            "run coppiced as root",
        )
    }
}

fn space(dir: &Path) -> Finding {
    // The directory may not be there yet: look at what it will lie on.
    let existing = dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail * stat.f_frsize;
            let found = format!("{} free at {}", model::ByteSize(free), existing.display());
            if free >= LOW_SPACE {
                ok("disk space", found)
            } else {
                warning("disk space", found, "choose another data_dir, or make room")
            }
        }
        Err(error) => missing("disk space", error.to_string(), "choose another data_dir"),
    }
}

fn tool(name: &'static str, package: &str) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => ok(name, path.display().to_string()),
        None => missing(
            name,
            "not in the PATH".to_owned(),
            &format!("apt-get install {package}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;

    fn kernel_finding(kernel: Option<&Path>, data_dir: &Path) -> Finding {
        let empty = data_dir.join("empty.toml");
        std::fs::write(&empty, "").unwrap();
        let given = Given {
            data_dir: Some(data_dir.to_owned()),
            kernel: kernel.map(Path::to_owned),
            initrd: kernel.map(Path::to_owned),
            ..Given::default()
        };
        let config = Config::resolve(given, Some(&empty)).unwrap();
        let boot = boot_files(&config, &Layout::new(data_dir));
        super::kernel(boot, config.boot.is_some())
    }

    #[test]
    fn a_configured_kernel_counts_and_a_wrong_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("vmlinuz");
        let found = kernel_finding(Some(&kernel), dir.path());
        assert_eq!(found.grade, Grade::Missing);
        assert!(found.found.contains("vmlinuz"), "{found:?}");
        assert!(found.remedy.unwrap().contains("configuration"));
        std::fs::write(&kernel, "").unwrap();
        let found = kernel_finding(Some(&kernel), dir.path());
        assert_eq!(found.grade, Grade::Ok, "{found:?}");
        let found = kernel_finding(None, dir.path());
        assert_eq!(found.remedy.as_deref(), Some("coppice setup"));
    }
}
