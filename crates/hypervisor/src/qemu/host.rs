//! What this host offers.

use std::path::{Path, PathBuf};

use super::config::{AccelChoice, QemuConfig};
use super::kvm::{self, Accel, KvmVerdict};
use super::version::QemuVersion;
use crate::VmmError;
use crate::machine::{host_cpu, program};

const PROGRAM: &str = "qemu-system-x86_64";

/// What was found on this host; for `doctor` and for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The program.
    pub qemu: PathBuf,
    /// Its version.
    pub version: QemuVersion,
    /// What is known about KVM.
    pub kvm: KvmVerdict,
    /// CPU model that guests have under KVM.
    pub kvm_cpu: &'static str,
}

/// Looks for QEMU and finds out whether KVM is usable. The latter can take some seconds the first time.
pub async fn probe(config: &QemuConfig) -> Result<HostReport, VmmError> {
    let qemu = find(config)?;
    let version = version(&qemu).await?;
    let kernel = config.probe_kernel.as_deref();
    let found = kvm::verdict(
        &qemu,
        &version.to_string(),
        kernel,
        config.verdict_cache.as_deref(),
    )
    .await;
    Ok(HostReport {
        qemu,
        version,
        kvm: found.verdict,
        kvm_cpu: found.cpu,
    })
}

/// What `config` leads to on this host.
pub(super) struct Choice {
    pub(super) qemu: PathBuf,
    pub(super) version: QemuVersion,
    pub(super) accel: Accel,
    /// Value of `-cpu`.
    pub(super) cpu: &'static str,
}

/// CPU model of translated guests. `+arat` spares them a periodic tick.
const TCG_CPU: &str = "qemu64,+arat";

/// Looks around and decides. KVM is tried only if it may be used.
pub(super) async fn choose(config: &QemuConfig) -> Result<Choice, VmmError> {
    if config.accel == AccelChoice::Tcg {
        let qemu = find(config)?;
        let version = version(&qemu).await?;
        return Ok(Choice {
            qemu,
            version,
            accel: Accel::Tcg,
            cpu: TCG_CPU,
        });
    }
    let report = probe(config).await?;
    let accel = match (&report.kvm, config.accel) {
        (KvmVerdict::Usable, _) => Accel::Kvm,
        (_, AccelChoice::Kvm) => return Err(VmmError::unusable(report.kvm.explain())),
        (_, AccelChoice::Auto | AccelChoice::Tcg) => {
            tracing::info!(reason = report.kvm.explain(), "KVM is not used");
            Accel::Tcg
        }
    };
    let cpu = match accel {
        Accel::Tcg => TCG_CPU,
        Accel::Kvm => report.kvm_cpu,
    };
    Ok(Choice {
        qemu: report.qemu,
        version: report.version,
        accel,
        cpu,
    })
}

fn find(config: &QemuConfig) -> Result<PathBuf, VmmError> {
    let found = program::find(config.qemu.as_deref(), PROGRAM);
    found.ok_or_else(|| {
        VmmError::unusable(format!(
            "{PROGRAM} is not installed (package qemu-system-x86)"
        ))
    })
}

async fn version(qemu: &Path) -> Result<QemuVersion, VmmError> {
    let text = program::version_text(qemu).await?;
    let version = QemuVersion::parse(&text).ok_or_else(|| {
        VmmError::unusable(format!("{} does not say its version", qemu.display()))
    })?;
    if version.numbers < QemuVersion::OLDEST {
        return Err(VmmError::unusable(format!(
            "QEMU {version} is too old, 7.2 is needed"
        )));
    }
    Ok(version)
}

/// CPU model for manifests.
pub(super) fn cpu_model(model: &str, accel: Accel) -> String {
    match accel {
        Accel::Tcg => model.to_owned(),
        Accel::Kvm => host_cpu(model),
    }
}
