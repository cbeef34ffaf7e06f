//! What `doctor` says of Firecracker.

use hypervisor::firecracker::shmem_keeps_pages_apart;

use super::{Finding, lacking, ok, warning};
use crate::app::{jail, kvm_for_firecracker, look_for_firecracker};
use crate::config::{Config, Hypervisor, JailMode};
use crate::instances::{BootFiles, Layout};

/// Looks for Firecracker, for what it needs, and for the jail of its machines.
pub(super) async fn examine(
    config: &Config,
    layout: &Layout,
    boot: Option<&BootFiles>,
) -> Vec<Finding> {
    let needed = config.hypervisor == Hypervisor::Firecracker;
    let remedy = if needed {
        "set hypervisor to qemu, or mend this"
    } else {
        "only instances with the hypervisor firecracker need it; others run on qemu"
    };
    let report = match look_for_firecracker(config).await {
        Ok(report) => report,
        Err(why) => return vec![lacking("firecracker", why, remedy, needed)],
    };
    let program = report.firecracker.display();
    let mut findings = vec![ok("firecracker", format!("{program} {}", report.version))];
    for hole in report.version.known_holes() {
        findings.push(warning(
            "firecracker",
            format!("{} has a known hole, {hole}", report.version),
            "install a newer release of Firecracker",
        ));
    }
    if let Err(why) = kvm_for_firecracker(config, layout, boot, &report).await {
        findings.push(lacking("firecracker", why, remedy, needed));
    }
    if boot.is_some_and(|boot| boot.elf_kernel.is_none()) {
        let found =
            "there is no uncompressed guest kernel, and Firecracker boots no other".to_owned();
        findings.push(lacking(
            "firecracker kernel",
            found,
            "coppice setup",
            needed,
        ));
    }
    findings.push(match jail(&config.firecracker, &report.firecracker) {
        Ok(Some(jail)) => ok("jailer", jail.jailer.display().to_string()),
        Ok(None) if config.firecracker.jail == JailMode::Off => ok(
            "jailer",
            "jails are switched off by the configuration".to_owned(),
        ),
        Ok(None) => warning(
            "jailer",
            "machines of Firecracker run as the daemon's user".to_owned(),
            "run coppiced as root, and put jailer of the same release beside firecracker",
        ),
        Err(why) => lacking("jailer", why, "or set jail to off", needed),
    });
    findings.push(files_in_memory(shmem_keeps_pages_apart()));
    findings
}

fn files_in_memory(pages_apart: bool) -> Finding {
    if pages_apart {
        return ok("files in memory", "on small pages".to_owned());
    }
    warning(
        "files in memory",
        "this host keeps them on huge pages, so each standby on Firecracker saves all of its memory".to_owned(),
        "write never or advise to /sys/kernel/mm/transparent_hugepage/shmem_enabled, and to those of each size beside it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn huge_pages_of_files_are_told_of() {
        assert_eq!(files_in_memory(true).grade, Grade::Ok);
        let found = files_in_memory(false);
        assert_eq!(found.grade, Grade::Warning, "it works all the same");
        assert!(found.remedy.unwrap().contains("shmem_enabled"));
    }
}
