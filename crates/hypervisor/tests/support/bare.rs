//! Firecracker as a person would use it: a process, requests over its socket, files in a directory.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// For any answer, however busy the host is.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at a socket that is about to be made.
pub(crate) const TICK: Duration = Duration::from_micros(200);

/// A Firecracker in a directory of its own. It ends with its handle.
pub(crate) struct ByHand {
    pub(crate) dir: PathBuf,
    pub(crate) child: Child,
}

impl Drop for ByHand {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a machine continues with.
pub(crate) struct Load<'a> {
    pub(crate) state: &'a Path,
    /// `File` or `Uffd`, and the path that goes with it.
    pub(crate) memory: (&'static str, &'a Path),
    pub(crate) resume: bool,
}

impl ByHand {
    /// Starts `firecracker` with nothing but its log and a link to its root disk.
    pub(crate) fn run(firecracker: &Path, root: &Path, dir: PathBuf) -> Self {
        std::os::unix::fs::symlink(root, dir.join("root")).unwrap();
        std::fs::write(dir.join("log"), "").unwrap();
        let mut command = Command::new(firecracker);
        command
            .args(["--api-sock", "api", "--log-path", "log"])
            .args(["--level", "Warning"])
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().unwrap();
        Self { dir, child }
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
