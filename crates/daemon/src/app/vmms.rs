//! The drivers of this host: the only file that names concrete ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use hypervisor::Driver;
use hypervisor::firecracker::{
    self, FirecrackerConfig, FirecrackerDriver, HostReport, JailConfig, KvmAccess,
};
use hypervisor::qemu::{self, AccelChoice, KvmVerdict, MachineChoice, QemuConfig, QemuDriver};
use memory::Loader;
use tracing::{info, warn};

use crate::config::{Accelerator, Config, FirecrackerKeys, Hypervisor, JailMode, Machine};
use crate::instances::{BootFiles, Drivers, Layout, chain};

/// Name of Firecracker's jailer.
const JAILER: &str = "jailer";

/// A driver, or why there is none.
type Found = Result<Arc<dyn Driver>, String>;

/// Every VMM that this daemon drives. Only the one of instances that ask for none must be here.
pub(super) async fn drivers(
    config: &Config,
    layout: &Layout,
    boot: Option<&BootFiles>,
    loader: Arc<Loader>,
) -> Result<Drivers> {
    let default = config.hypervisor.name();
    let qemu = QemuDriver::new(qemu_config(config, layout, boot)?, Arc::clone(&loader)).await;
    let qemu = qemu.map_err(|error| chain(&error));
    let firecracker = firecracker_driver(config, layout, boot, loader).await;
    let found: [(Hypervisor, Found); 2] = [
        (Hypervisor::Qemu, qemu.map(|driver| Arc::new(driver) as _)),
        (
            Hypervisor::Firecracker,
            firecracker.map(|driver| Arc::new(driver) as _),
        ),
    ];
    let mut drivers = Drivers::new(default);
    for (hypervisor, driver) in found {
        drivers = match driver {
            Ok(driver) => {
                let identity = driver.identity();
                info!(vmm = %identity.name, version = %identity.version, accelerator = %identity.accelerator, "driver");
                drivers.with(driver)
            }
            Err(why) if hypervisor == config.hypervisor => {
                bail!("cannot use {default}: {why}; run: coppice doctor")
            }
            Err(why) => {
                let vmm = hypervisor.name();
                info!(vmm, %why, "this VMM cannot be used here");
                drivers.without(vmm, why)
            }
        };
    }
    Ok(drivers)
}

/// Program and first argument that lead to the launcher.
fn launcher() -> Result<Vec<String>> {
    let program = super::program::own();
    let program = program
        .to_str()
        .context("the daemon's path is not UTF-8")?
        .to_owned();
    Ok(vec![program, crate::LAUNCH_COMMAND.to_owned()])
}

/// The configuration of QEMU's driver, also for `doctor`.
pub fn qemu_config(
    config: &Config,
    layout: &Layout,
    boot: Option<&BootFiles>,
) -> Result<QemuConfig> {
    Ok(QemuConfig {
        qemu: config.qemu.clone(),
        launcher: launcher()?,
        accel: match config.accelerator {
            Accelerator::Auto => AccelChoice::Auto,
            Accelerator::Tcg => AccelChoice::Tcg,
            Accelerator::Kvm => AccelChoice::Kvm,
        },
        machine: match config.machine {
            Machine::Microvm => MachineChoice::Microvm,
            Machine::Q35 => MachineChoice::Q35,
        },
        vmm_uid: config.vmm_uid,
        probe_kernel: boot.map(|boot| -> PathBuf { boot.kernel.clone() }),
        verdict_cache: Some(layout.kvm_verdict()),
    })
}

async fn firecracker_driver(
    config: &Config,
    layout: &Layout,
    boot: Option<&BootFiles>,
    loader: Arc<Loader>,
) -> Result<FirecrackerDriver, String> {
    let found = look_for_firecracker(config).await?;
    kvm_for_firecracker(config, layout, boot, &found).await?;
    let jail = jail(&config.firecracker, &found.firecracker)?;
    if jail.is_none() && config.firecracker.jail == JailMode::Auto {
        warn!(
            "machines of Firecracker are not jailed: that needs root, and jailer beside firecracker"
        );
    }
    let settings = FirecrackerConfig {
        firecracker: Some(found.firecracker),
        launcher: launcher().map_err(|error| format!("{error:#}"))?,
        start_deadline: FirecrackerConfig::START_DEADLINE,
        jail,
    };
    let driver = FirecrackerDriver::new(settings, loader).await;
    driver.map_err(|error| chain(&error))
}

/// The Firecracker of this host.
pub(crate) async fn look_for_firecracker(config: &Config) -> Result<HostReport, String> {
    let settings = FirecrackerConfig {
        firecracker: config.firecracker.program.as_deref().map(resolved),
        launcher: Vec::new(),
        start_deadline: FirecrackerConfig::START_DEADLINE,
        jail: None,
    };
    let report = firecracker::probe(&settings).await;
    report.map_err(|error| chain(&error))
}

/// Whether machines of Firecracker run as users of their own.
pub(super) async fn is_jailed(config: &Config) -> bool {
    match look_for_firecracker(config).await {
        Ok(found) => matches!(jail(&config.firecracker, &found.firecracker), Ok(Some(_))),
        Err(_) => false,
    }
}

/// Whether KVM runs Linux guests, without which Firecracker runs nothing, or why not. A kernel is
/// tried on it with QEMU, where that is installed; the finding is remembered.
pub(crate) async fn kvm_for_firecracker(
    config: &Config,
    layout: &Layout,
    boot: Option<&BootFiles>,
    found: &HostReport,
) -> Result<(), String> {
    if found.kvm != KvmAccess::Usable {
        return Err(found.kvm.explain().to_owned());
    }
    let qemu = qemu_config(config, layout, boot).map_err(|error| format!("{error:#}"))?;
    match qemu::probe(&qemu).await.map(|found| found.kvm) {
        Ok(KvmVerdict::CannotRunGuest(reason)) => Err(format!(
            "/dev/kvm does not run Linux guests here ({reason}), and Firecracker runs nothing without it; use qemu"
        )),
        // Nothing against it is known.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// How machines of the Firecracker at `program` are jailed; none if they are not to be, or why they cannot.
pub(crate) fn jail(keys: &FirecrackerKeys, program: &Path) -> Result<Option<JailConfig>, String> {
    let lack = match (keys.jail, find_jailer(keys, program)) {
        (JailMode::Off, _) => return Ok(None),
        (_, Some(jailer)) if rustix::process::geteuid().is_root() => {
            return Ok(Some(JailConfig {
                jailer,
                uids: keys.uids.clone(),
                cgroup_version: cgroup_version(),
                cgroups: keys.cgroups.clone(),
            }));
        }
        (_, Some(_)) => "only root can make jails: run coppiced as root, or set jail to off",
        (_, None) => {
            "the jailer is missing: put jailer of the same release beside firecracker, or set jail to off"
        }
    };
    match keys.jail {
        JailMode::On => Err(lack.to_owned()),
        JailMode::Auto | JailMode::Off => Ok(None),
    }
}

fn find_jailer(keys: &FirecrackerKeys, program: &Path) -> Option<PathBuf> {
    let beside = program.with_file_name(JAILER);
    let path = match &keys.jailer {
        Some(named) => resolved(named),
        None if beside.is_file() => beside,
        None => resolved(Path::new(JAILER)),
    };
    path.is_file().then_some(path)
}

/// Where a program that may be named without its directory is; the name itself if it is nowhere.
fn resolved(program: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_directory = program.components().count() > 1;
    let found = std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|candidate| !has_directory && candidate.is_file());
    found.unwrap_or_else(|| program.to_owned())
}

/// Version of the control groups that the host has mounted.
fn cgroup_version() -> u32 {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(mode: JailMode, jailer: Option<&Path>) -> FirecrackerKeys {
        FirecrackerKeys {
            program: None,
            jail: mode,
            jailer: jailer.map(Path::to_owned),
            uids: 7..9,
            cgroups: vec!["memory.max=2G".to_owned()],
        }
    }

    #[test]
    fn machines_are_jailed_where_that_is_possible_or_refused_where_it_must_be() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("firecracker");
        let nowhere = dir.path().join("nowhere");
        let lost = |mode| keys(mode, Some(&nowhere));
        assert_eq!(jail(&lost(JailMode::Auto), &program), Ok(None));
        let why = jail(&lost(JailMode::On), &program).unwrap_err();
        assert!(why.contains("jailer") && why.contains("off"), "{why}");

        let beside = dir.path().join(JAILER);
        std::fs::write(&beside, "").unwrap();
        let found = |mode| jail(&keys(mode, None), &program);
        assert_eq!(found(JailMode::Off), Ok(None));
        if rustix::process::geteuid().is_root() {
            let made = found(JailMode::Auto).unwrap().unwrap();
            assert_eq!((made.jailer, made.uids), (beside, 7..9));
            assert_eq!(made.cgroups, ["memory.max=2G"]);
        } else {
            assert_eq!(found(JailMode::Auto), Ok(None));
            assert!(found(JailMode::On).unwrap_err().contains("root"));
        }
    }
}
