//! Firecracker as a person would use it: a process, requests over its socket, files in a directory. What the driver
//! rests on is shown with it, and what the driver costs is measured against it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Instant;

use hypervisor::conformance::{Guest, Rig};
use serde_json::{Value, json};

pub(crate) use crate::bare::{ByHand, Load, TICK};
use crate::firecracker::Firecracker;
use crate::probe::{self, DEADLINE, RAM_BYTES};

/// Whether a machine has a balloon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balloon {
    Present,
    Absent,
}

impl ByHand {
    /// Starts it with nothing but a link to its root disk and its log.
    pub(crate) fn start(subject: &Firecracker, dir: PathBuf) -> Self {
        Self::run(
            &subject.real().firecracker.unwrap(),
            &subject.guest.root(),
            dir,
        )
    }

    /// Boots the probe guest and waits for it. Pages that it writes are tracked.
    pub(crate) fn boot(rig: &Rig<'_>, subject: &Firecracker, balloon: Balloon) -> Self {
        let dir = new_dir(rig);
        probe::make_disk(&dir.join("disk"));
        let mut vm = Self::start(subject, dir);
        let kernel = subject.guest.kernel().kernel;
        let drive = |name: &str| json!({ "drive_id": name, "path_on_host": name, "is_root_device": false, "is_read_only": name == "root" });
        vm.put(
            "/machine-config",
            &json!({ "vcpu_count": subject.guest.vcpus, "mem_size_mib": RAM_BYTES >> 20, "track_dirty_pages": true }),
        );
        vm.put("/boot-source", &json!({ "kernel_image_path": kernel }));
        vm.put("/drives/root", &drive("root"));
        vm.put("/drives/disk", &drive("disk"));
        vm.put("/vsock", &json!({ "guest_cid": 3, "uds_path": "vsock" }));
        if balloon == Balloon::Present {
            vm.put(
                "/balloon",
                &json!({ "amount_mib": 0, "deflate_on_oom": false }),
            );
        }
        vm.put("/actions", &json!({ "action_type": "InstanceStart" }));
        vm.ask("beats");
        vm
    }

    /// Continues a saved machine in a new directory with a copy of its disk.
    pub(crate) fn load(rig: &Rig<'_>, subject: &Firecracker, disk: &Path, load: &Load<'_>) -> Self {
        let dir = new_dir(rig);
        memory::copy_sparse(disk, &dir.join("disk")).unwrap();
        let mut vm = Self::start(subject, dir);
        let (status, answer) = vm.try_load(load);
        assert_eq!(status, 204, "{answer}");
        vm
    }

    /// Saves the machine, which must be paused, as files `<name>.state` and `<name>.ram` in its directory.
    pub(crate) fn save(&mut self, kind: &str, name: &str) -> (PathBuf, PathBuf) {
        let (state, ram) = (format!("{name}.state"), format!("{name}.ram"));
        let body = json!({ "snapshot_type": kind, "snapshot_path": state, "mem_file_path": ram });
        self.put("/snapshot/create", &body);
        (self.dir.join(state), self.dir.join(ram))
    }

    /// `Paused` or `Resumed`.
    pub(crate) fn set(&mut self, state: &str) {
        let (status, answer) = self.call("PATCH", "/vm", &json!({ "state": state }));
        assert_eq!(status, 204, "{answer}");
    }

    pub(crate) fn put(&mut self, path: &str, body: &Value) {
        let (status, answer) = self.call("PUT", path, body);
        assert_eq!(status, 204, "{path}: {answer}");
    }

    pub(crate) fn number(&mut self, line: &str) -> u64 {
        self.ask(line).parse().unwrap()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(TICK);
        }
    }
}

/// A directory in which no name is taken.
pub(crate) fn new_dir(rig: &Rig<'_>) -> PathBuf {
    let dir = rig.instance_dir().join("by-hand");
    std::fs::create_dir(&dir).unwrap();
    dir
}
