//! Firecracker as a person would use it: a process, requests over its socket, files in a directory. What the driver
//! rests on is shown with it, and what the driver costs is measured against it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hypervisor::conformance::{Guest, Rig};
use serde_json::{Value, json};

use crate::firecracker::Firecracker;
use crate::probe::{self, DEADLINE, RAM_BYTES};

/// Between two looks at a socket that is about to be made.
const TICK: Duration = Duration::from_micros(200);

/// A Firecracker in a directory of its own. It ends with its handle.
pub(crate) struct ByHand {
    pub(crate) dir: PathBuf,
    child: Child,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a machine has a balloon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Balloon {
    Present,
    Absent,
}

/// What a machine continues with.
pub(crate) struct Load<'a> {
    pub(crate) state: &'a Path,
    /// `File` or `Uffd`, and the path that goes with it.
    pub(crate) memory: (&'static str, &'a Path),
    pub(crate) resume: bool,
}

impl ByHand {
    /// Starts it with nothing but links to its files and its log.
    pub(crate) fn start(subject: &Firecracker, dir: PathBuf) -> Self {
        std::os::unix::fs::symlink(subject.guest.root(), dir.join("root")).unwrap();
        std::fs::write(dir.join("log"), "").unwrap();
        let mut command = Command::new(subject.real().firecracker.unwrap());
        command
            .args(["--api-sock", "api", "--log-path", "log"])
            .args(["--level", "Warning"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        Self { dir, child }
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

    /// Asks for a load; the status and the answer.
    pub(crate) fn try_load(&mut self, load: &Load<'_>) -> (u16, String) {
        let (kind, path) = load.memory;
        let body = json!({
            "snapshot_path": load.state,
            "mem_backend": { "backend_type": kind, "backend_path": path },
            "enable_diff_snapshots": true,
            "resume_vm": load.resume,
        });
        self.call("PUT", "/snapshot/load", &body)
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

    /// One request on a connection of its own.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let mut api = self.connect("api");
        let body = body.to_string();
        write!(
            api,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = BufReader::new(api);
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            answer.read_line(&mut line).unwrap();
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length:") {
                length = rest.trim().parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text).unwrap();
        (status, String::from_utf8(text).unwrap())
    }

    /// One line to the guest, one line back.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        let mut guest = loop {
            let mut guest = BufReader::new(self.connect("vsock"));
            guest.get_mut().write_all(b"CONNECT 1024\n").unwrap();
            let mut answer = String::new();
            if guest.read_line(&mut answer).is_ok() && answer.starts_with("OK ") {
                break guest;
            }
        };
        guest
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        guest.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
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

    fn connect(&mut self, name: &str) -> UnixStream {
        let socket = self.dir.join(name);
        loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                stream.set_read_timeout(Some(DEADLINE)).unwrap();
                return stream;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended");
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
