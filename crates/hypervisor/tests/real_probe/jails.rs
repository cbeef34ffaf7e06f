//! What a jail keeps from a machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hypervisor::conformance::Rig;

use crate::firecracker::{Firecracker, UIDS};
use crate::probe::RAM_BYTES;

/// Each machine has a user of its own, a root with nothing of the host's in it, a filter of system calls, and a control
/// group with the limits that were configured; and leaves none of it.
pub(crate) async fn machines_are_apart(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let machines = [rig.launch().await, rig.launch().await];
    let mut users = BTreeSet::new();
    let mut groups = Vec::new();
    for machine in &machines {
        let pid = machine.vm.process().pid;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let uid: u32 = field("Uid:").parse().unwrap();
        assert!(UIDS.contains(&uid), "it runs as user {uid}");
        users.insert(uid);
        let files = rustix::fs::statvfs(format!("/proc/{pid}/root")).unwrap();
        let most = files.f_blocks * files.f_frsize;
        assert!(most >= RAM_BYTES, "its RAM can be saved");
        assert!(most < 2 * RAM_BYTES, "it may fill {most} bytes of memory");
        assert_eq!(field("Gid:"), uid.to_string());
        assert_eq!(field("Seccomp:"), "2", "system calls are filtered");
        assert_eq!(field("CapEff:"), "0000000000000000");
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        assert!(root.join("disk").exists() && !root.join("etc").exists());
        groups.extend(group_of(pid));
    }
    assert_eq!(users.len(), machines.len());
    assert_eq!(groups.len(), machines.len(), "{groups:?}");
    for group in &groups {
        let shares = std::fs::read_to_string(group.join(subject.cgroup_file())).unwrap();
        assert_eq!(shares.trim(), "200");
    }
    for machine in machines {
        machine.vm.kill().await.unwrap();
        assert!(!machine.dir.join("run/jail").exists());
    }
    for group in groups {
        assert!(!group.exists(), "{} is left", group.display());
    }
}

/// The control group that the jailer has made.
fn group_of(pid: i32) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        path.starts_with("/firecracker/").then(|| {
            Path::new("/sys/fs/cgroup")
                .join(controllers)
                .join(&path[1..])
        })
    })
}
