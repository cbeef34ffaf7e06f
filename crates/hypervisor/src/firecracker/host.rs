//! What this host offers.

use std::path::{Path, PathBuf};

use super::config::FirecrackerConfig;
use super::version::FirecrackerVersion;
use crate::VmmError;
use crate::machine::program;

const PROGRAM: &str = "firecracker";

const KVM: &str = "/dev/kvm";

/// What was found on this host; for `doctor` and for the driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// The program.
    pub firecracker: PathBuf,
    /// Its version.
    pub version: FirecrackerVersion,
    /// Whether KVM may be used, without which it runs nothing.
    pub kvm: KvmAccess,
    /// What an operator should know, each in a sentence.
    pub warnings: Vec<String>,
}

/// Whether `/dev/kvm` may be used. That a Linux guest runs on it is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvmAccess {
    /// It can be opened.
    Usable,
    /// There is none.
    Absent,
    /// This user may not open it.
    NoAccess,
}

impl KvmAccess {
    /// Looks for it.
    #[must_use]
    pub fn find() -> Self {
        match std::fs::OpenOptions::new().read(true).write(true).open(KVM) {
            Ok(_) => Self::Usable,
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Self::NoAccess,
            Err(_) => Self::Absent,
        }
    }

    /// A sentence for people.
    #[must_use]
    pub fn explain(self) -> &'static str {
        match self {
            Self::Usable => "/dev/kvm can be opened",
            Self::Absent => {
                "there is no /dev/kvm, and Firecracker runs nothing without it; use QEMU here"
            }
            Self::NoAccess => {
                "/dev/kvm may not be opened by this user (join the group kvm), and Firecracker runs nothing without it"
            }
        }
    }
}

/// Looks for Firecracker, its version and KVM.
pub async fn probe(config: &FirecrackerConfig) -> Result<HostReport, VmmError> {
    let firecracker = find(config)?;
    let version = version(&firecracker).await?;
    let kvm = KvmAccess::find();
    let mut warnings: Vec<String> = version
        .known_holes()
        .into_iter()
        .map(|hole| format!("Firecracker {version} has a known hole, {hole}"))
        .collect();
    if kvm != KvmAccess::Usable {
        warnings.push(kvm.explain().to_owned());
    }
    Ok(HostReport {
        firecracker,
        version,
        kvm,
        warnings,
    })
}

fn find(config: &FirecrackerConfig) -> Result<PathBuf, VmmError> {
    let found = program::find(config.firecracker.as_deref(), PROGRAM);
    found.ok_or_else(|| {
        VmmError::unusable(
            "firecracker is not installed: put a release of it into the PATH, or name it in the configuration",
        )
    })
}

async fn version(firecracker: &Path) -> Result<FirecrackerVersion, VmmError> {
    let text = program::version_text(firecracker).await?;
    let version = FirecrackerVersion::parse(&text).ok_or_else(|| {
        VmmError::unusable(format!(
            "{} does not say its version",
            firecracker.display()
        ))
    })?;
    if version < FirecrackerVersion::OLDEST {
        return Err(VmmError::unusable(format!(
            "Firecracker {version} is too old, {} is needed",
            FirecrackerVersion::OLDEST
        )));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// What is found where the program says this version.
    async fn found(version: &str) -> Result<HostReport, VmmError> {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("firecracker");
        std::fs::write(&program, format!("#!/bin/sh\necho Firecracker {version}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let config = FirecrackerConfig {
            firecracker: Some(program),
            launcher: Vec::new(),
            start_deadline: FirecrackerConfig::START_DEADLINE,
            jail: None,
        };
        probe(&config).await
    }

    #[tokio::test]
    async fn old_versions_are_refused_and_those_with_holes_warned_about() {
        let error = found("v1.11.0").await.unwrap_err().to_string();
        assert!(error.contains("1.11.0 is too old"), "{error}");
        let error = found("nonsense").await.unwrap_err().to_string();
        assert!(error.contains("does not say its version"), "{error}");
        let oldest = FirecrackerVersion::OLDEST;
        let report = found(&format!("v{oldest}")).await.unwrap();
        let holes = oldest.known_holes();
        assert!(!holes.is_empty());
        for hole in holes {
            let named = |warning: &String| warning.contains(hole);
            assert!(report.warnings.iter().any(named), "{hole}");
        }
    }
}
