//! Figures, not verdicts: what the driver adds to the same steps by hand, and what a fork weighs.
//!
//! Ten runs of 20 samples each, release build, two cores that others kept busy (load 4 to 5): 31 to 38 ms by the driver
//! and 19 to 23 ms by hand, ratios of 1.4 to 2.0, and one run of 1.2 (18 and 15 ms). What the difference consists of has
//! not been measured.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypervisor::conformance::{Rig, Saved};
use hypervisor::{RamUse, Wake};
use memory::{Loader, PAGE_BYTES};

use crate::extra::{template, wrong};
use crate::firecracker::Firecracker;
use crate::probe::{self, BALLAST_PAGES, RAM_BYTES};

const SAMPLES: usize = 20;
const FORKS: usize = 8;

/// From nothing to the first answer of the guest: by the driver, by hand with the same program, and their ratio. Then
/// the memory of forks that run at once.
pub(crate) async fn measure_restore(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let saved = template(&rig).await;
    let _hold = rig
        .driver
        .templates()
        .unwrap()
        .hold(saved.image.dir())
        .await;
    let by_hand = ByHand::prepare(&rig, &saved, subject);
    let (mut driven, mut handmade) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
        let began = Instant::now();
        let fork = rig.try_restore(plan).await.unwrap();
        probe::line(fork.vm.as_ref(), "beats").await;
        driven.push(began.elapsed());
        fork.vm.kill().await.unwrap();
        handmade.push(by_hand.restore(&rig.instance_dir()));
    }
    let (driven, handmade) = (median(driven), median(handmade));
    println!(
        "  restore to first answer: {driven:.1?}, by hand {handmade:.1?}, ratio {:.2}",
        driven.as_secs_f64() / handmade.as_secs_f64()
    );

    let mut forks = Vec::new();
    for _ in 0..FORKS {
        let fork = rig.restore(&saved.image, RamUse::Fork).await;
        probe::line(fork.vm.as_ref(), "beats").await;
        fork.vm.pause().await.unwrap();
        forks.push(fork);
    }
    for (when, reads) in [
        ("after the first answer", 0),
        ("after reading the ballast", BALLAST_PAGES),
    ] {
        let mut pss = 0;
        for fork in &forks {
            fork.vm.resume().await.unwrap();
            wrong(fork, 0, reads, 1).await;
            fork.vm.pause().await.unwrap();
        }
        for fork in &forks {
            let memory = fork.vm.memory().unwrap().report().await.unwrap();
            pss += memory.pss_bytes / FORKS as u64;
        }
        println!(
            "  PSS of each of {FORKS} forks {when}: {} KiB of {} MiB",
            pss >> 10,
            RAM_BYTES >> 20
        );
    }
    for fork in forks {
        fork.vm.kill().await.unwrap();
    }
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// The steps of a restore as a person would take them, with one file of RAM in memory.
struct ByHand {
    program: std::path::PathBuf,
    ram: tempfile::NamedTempFile,
    saved_state: std::path::PathBuf,
    root: std::path::PathBuf,
    disk: std::path::PathBuf,
}

impl ByHand {
    fn prepare(rig: &Rig<'_>, saved: &Saved, subject: &Firecracker) -> Self {
        let ram = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        ram.as_file().set_len(RAM_BYTES).unwrap();
        let loader = Loader::default();
        for layer in 0..saved.image.manifest().layers.len() {
            let place = |first: u64, bytes: &[u8]| {
                use std::os::unix::fs::FileExt;
                ram.as_file().write_all_at(bytes, first * PAGE_BYTES as u64)
            };
            loader.read_layer(&saved.image, layer, place).unwrap();
        }
        Self {
            program: subject.real().firecracker.unwrap(),
            ram,
            saved_state: saved.image.state_path(),
            root: rig.subject.root(),
            disk: saved.image.disk_path(0),
        }
    }

    fn restore(&self, dir: &Path) -> Duration {
        std::os::unix::fs::symlink(&self.root, dir.join("root")).unwrap();
        // An instance's directory has one of that name.
        fs::remove_dir(dir.join("disk")).unwrap();
        memory::copy_sparse(&self.disk, &dir.join("disk")).unwrap();
        fs::write(dir.join("log"), "").unwrap();
        let began = Instant::now();
        let mut child = Ends(self.start(dir));
        let body = format!(
            r#"{{"snapshot_path":"{}","mem_backend":{{"backend_type":"File","backend_path":"{}"}},"enable_diff_snapshots":true,"resume_vm":true}}"#,
            self.saved_state.display(),
            self.ram.path().display(),
        );
        let mut api = connect(&dir.join("api"), &mut child.0);
        write!(api, "PUT /snapshot/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = [0; 12];
        api.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
        let mut guest = loop {
            let mut guest = BufReader::new(connect(&dir.join("vsock"), &mut child.0));
            guest.get_mut().write_all(b"CONNECT 1024\n").unwrap();
            let mut line = String::new();
            if guest.read_line(&mut line).is_ok() && line.starts_with("OK ") {
                break guest;
            }
        };
        guest.get_mut().write_all(b"beats\n").unwrap();
        guest.read_line(&mut String::new()).unwrap();
        began.elapsed()
    }

    fn start(&self, dir: &Path) -> Child {
        let mut command = Command::new(&self.program);
        command
            .args(["--api-sock", "api", "--log-path", "log"])
            .args(["--level", "Warning"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.spawn().unwrap()
    }
}

/// A process that ends with its test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(socket: &Path, child: &mut Child) -> UnixStream {
    loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            return stream;
        }
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(Duration::from_micros(200));
    }
}
