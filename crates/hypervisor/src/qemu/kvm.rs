//! Whether KVM on this host runs Linux guests.
//!
//! `/dev/kvm` alone says little: on hosts that offer it without hardware support below, guest kernels die early.
//! So a kernel is started once, with nothing to mount: getting as far as missing its root file system, long after
//! its self-tests, proves that KVM works. The finding is kept until the boot, the kernel or QEMU changes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::timeout;

/// A kernel needs one or two seconds to get there on working KVM.
const PROBE_DEADLINE: Duration = Duration::from_secs(12);

const DEVICE: &str = "/dev/kvm";

/// CPU models that are tried, the best one first. A KVM that runs inside a guest may refuse the register in which
/// processors tell of their holes, and QEMU aborts then.
pub(super) const CPUS: [&str; 2] = ["host", "host,-arch-capabilities"];

/// The accelerator in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accel {
    Tcg,
    Kvm,
}

impl Accel {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

/// What was found out about KVM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvmVerdict {
    /// It runs Linux guests.
    Usable,
    /// There is no `/dev/kvm`.
    Absent,
    /// `/dev/kvm` exists, but this user may not open it.
    NoAccess,
    /// It exists and opens, but a Linux guest does not run on it, or no kernel was given to try.
    CannotRunGuest(String),
}

impl KvmVerdict {
    /// A sentence for people.
    #[must_use]
    pub fn explain(&self) -> String {
        match self {
            Self::Usable => "KVM runs Linux guests here".into(),
            Self::Absent => "there is no /dev/kvm; guests run translated (TCG), several times slower".into(),
            Self::NoAccess => "/dev/kvm may not be opened by this user (join the group kvm); guests run translated".into(),
            Self::CannotRunGuest(reason) => {
                format!("/dev/kvm exists but does not run Linux guests ({reason}); guests run translated")
            }
        }
    }
}

/// What was found out, and the CPU model of [`CPUS`] that it was found out with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) verdict: KvmVerdict,
    pub(super) cpu: &'static str,
}

impl Finding {
    /// Without a try there is nothing against the best one.
    fn untried(verdict: KvmVerdict) -> Self {
        Self {
            verdict,
            cpu: CPUS[0],
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cached {
    boot_id: String,
    kernel: String,
    qemu: String,
    verdict: KvmVerdict,
    cpu: String,
}

/// Finds out, or remembers.
pub(super) async fn verdict(
    qemu: &Path,
    version: &str,
    kernel: Option<&Path>,
    cache: Option<&Path>,
) -> Finding {
    match fs::OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Finding::untried(KvmVerdict::NoAccess);
        }
        Err(_) => return Finding::untried(KvmVerdict::Absent),
    }
    let Some(kernel) = kernel else {
        let reason = "no kernel was given to try it with".into();
        return Finding::untried(KvmVerdict::CannotRunGuest(reason));
    };
    let boot_id = crate::process::boot_id().unwrap_or_default();
    let kernel_name = kernel_name(kernel);
    if let Some(found) = cache.and_then(|path| read_cache(path, &boot_id, &kernel_name, version)) {
        return found;
    }
    let found = try_guest(qemu, kernel).await;
    if let Some(path) = cache {
        let cached = Cached {
            boot_id,
            kernel: kernel_name,
            qemu: version.to_owned(),
            verdict: found.verdict.clone(),
            cpu: found.cpu.to_owned(),
        };
        let written = serde_json::to_vec(&cached)
            .map_err(Into::into)
            .and_then(|text| fs::write(path, text));
        if let Err(error) = written {
            tracing::warn!(%error, path = %path.display(), "cannot keep the finding about KVM");
        }
    }
    found
}

/// Tells kernels apart without reading them.
fn kernel_name(kernel: &Path) -> String {
    let metadata = fs::metadata(kernel).ok();
    let modified = metadata
        .as_ref()
        .and_then(|metadata| metadata.modified().ok());
    format!(
        "{} {:?} {:?}",
        kernel.display(),
        metadata.map(|metadata| metadata.len()),
        modified
    )
}

fn read_cache(path: &Path, boot_id: &str, kernel: &str, qemu: &str) -> Option<Finding> {
    let cached: Cached = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let cpu = CPUS.into_iter().find(|cpu| *cpu == cached.cpu)?;
    let verdict = cached.verdict;
    (cached.boot_id == boot_id && cached.kernel == kernel && cached.qemu == qemu)
        .then_some(Finding { verdict, cpu })
}

async fn try_guest(qemu: &Path, kernel: &Path) -> Finding {
    let [best, plain] = CPUS;
    let verdict = try_cpu(qemu, kernel, best).await;
    match &verdict {
        // As "failed to set MSR 0x10a", and the assertion that follows it.
        KvmVerdict::CannotRunGuest(reason) if reason.to_lowercase().contains("msr") => Finding {
            verdict: try_cpu(qemu, kernel, plain).await,
            cpu: plain,
        },
        _ => Finding { verdict, cpu: best },
    }
}

async fn try_cpu(qemu: &Path, kernel: &Path, cpu: &str) -> KvmVerdict {
    let mut command = Command::new(qemu);
    command
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ])
        .args([
            "-accel",
            "kvm",
            "-cpu",
            cpu,
            "-m",
            "128",
            "-machine",
            "microvm,acpi=on,rtc=on,isa-serial=on,pit=off,pic=off",
        ])
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1 reboot=t"])
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    match timeout(PROBE_DEADLINE, command.output()).await {
        Err(_) => KvmVerdict::CannotRunGuest(format!(
            "a Linux kernel did not start within {} s",
            PROBE_DEADLINE.as_secs()
        )),
        Ok(Err(error)) => {
            KvmVerdict::CannotRunGuest(format!("{} does not start: {error}", qemu.display()))
        }
        Ok(Ok(output)) => judge(
            &String::from_utf8_lossy(&output.stdout),
            &String::from_utf8_lossy(&output.stderr),
        ),
    }
}

/// The kernel ends with a panic in any case; the question is which.
fn judge(console: &str, stderr: &str) -> KvmVerdict {
    if console.contains("Unable to mount root") {
        return KvmVerdict::Usable;
    }
    let last = |text: &str| {
        text.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .map(|line| line.trim().to_owned())
    };
    let reason = last(stderr)
        .or_else(|| last(console))
        .unwrap_or_else(|| "the guest ended without a word".into());
    KvmVerdict::CannotRunGuest(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_by_how_far_the_kernel_came() {
        let table = [
            (
                "Linux version 6.1\nKernel panic - not syncing: VFS: Unable to mount root fs\n",
                "",
                KvmVerdict::Usable,
            ),
            (
                "",
                "",
                KvmVerdict::CannotRunGuest("the guest ended without a word".into()),
            ),
            (
                "Linux version 6.1\nint3 died\n",
                "",
                KvmVerdict::CannotRunGuest("int3 died".into()),
            ),
            (
                "Linux version 6.1",
                "qemu: error\n",
                KvmVerdict::CannotRunGuest("qemu: error".into()),
            ),
        ];
        for (console, stderr, wanted) in table {
            assert_eq!(judge(console, stderr), wanted);
        }
    }

    #[test]
    fn a_cached_finding_holds_for_the_same_host_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kvm.json");
        let cached = Cached {
            boot_id: "b".into(),
            kernel: "k".into(),
            qemu: "q".into(),
            verdict: KvmVerdict::Usable,
            cpu: CPUS[1].into(),
        };
        fs::write(&path, serde_json::to_vec(&cached).unwrap()).unwrap();
        let found = Finding {
            verdict: KvmVerdict::Usable,
            cpu: CPUS[1],
        };
        assert_eq!(read_cache(&path, "b", "k", "q"), Some(found));
        for (boot, kernel, qemu) in [("x", "k", "q"), ("b", "x", "q"), ("b", "k", "x")] {
            assert_eq!(read_cache(&path, boot, kernel, qemu), None);
        }
    }
}
