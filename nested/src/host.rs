//! Booting the machine and reading what it says.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Command, PORTS};

/// Memory of the machine. Its guests have some 128 MiB each, and what is written to files is in memory too.
const MEMORY_MIB: u32 = 4096;

/// Between two looks at whether QEMU has ended.
const TICK: Duration = Duration::from_millis(20);

/// Until the first sign of life: it boots, which takes some ten seconds on an idle host.
const BOOT: Duration = Duration::from_secs(240);

/// A host without a sign of life for so long has died: its kernel hangs, or waits for an interrupt that was lost.
/// It is far more than the [`BEAT_SECONDS`](crate::command::BEAT_SECONDS) between two, for a processor that many share.
const SILENCE: Duration = Duration::from_secs(90);

/// Kernel and initrd of a nested host.
#[derive(Debug, Clone)]
pub struct Host {
    kernel: PathBuf,
    initrd: PathBuf,
}

/// How a program ended.
#[derive(Debug)]
pub struct Output {
    /// What it printed to standard output and standard error.
    pub text: String,
    /// Its end, or why there was none.
    pub end: End,
    /// The end of what the machine's kernel said.
    pub console: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this exit code.
    Exit(i32),
    /// The time was over, and the machine alive.
    Late,
    /// The machine fell silent, or its kernel panicked. The program has nothing to say about it: QEMU's idea of
    /// virtualization is rarely used, and not free of faults.
    HostDied,
}

impl Host {
    /// The nested host that was made in a directory.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn open(dir: &Path) -> Result<Self, String> {
        let host = Self {
            kernel: dir.join("kernel"),
            initrd: dir.join("initrd"),
        };
        for path in [&host.kernel, &host.initrd] {
            if !path.is_file() {
                return Err(format!(
                    "there is no {}; run: cargo xtask test",
                    path.display()
                ));
            }
        }
        Ok(host)
    }

    /// Runs a program of this host in the machine, which has this host's files, and ends the machine.
    ///
    /// # Errors
    /// When QEMU cannot be started, or files for it cannot be written.
    pub fn run(
        &self,
        program: &Path,
        arguments: &[&OsStr],
        environment: &[(&str, &OsStr)],
        limit: Duration,
    ) -> io::Result<Output> {
        let scratch = tempfile::tempdir()?;
        let directory = std::env::current_dir()?;
        let command = Command {
            program,
            arguments,
            environment,
            directory: &directory,
        };
        let script = scratch.path().join("command");
        fs::write(&script, command.script())?;
        let file = |name: &str| scratch.path().join(name);
        let mut qemu = Process::new("qemu-system-x86_64");
        qemu.args(self.arguments(&script, &file))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(file("qemu"))?);
        let waited = wait(qemu.spawn()?, &file(PORTS[2]), limit)?;
        let read = |name: &str| {
            let bytes = fs::read(file(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let console = format!("{}{}", read("qemu"), read("console"));
        Ok(Output {
            text: read(PORTS[0]),
            end: match read(PORTS[1]).trim().parse() {
                Ok(code) => End::Exit(code),
                Err(_) => waited,
            },
            console: last_lines(&console),
        })
    }

    fn arguments(&self, script: &Path, file: &dyn Fn(&str) -> PathBuf) -> Vec<OsString> {
        let words = [
            // SVM with nested paging: kvm-amd takes it for what it is. One processor, for what several tell each other
            // in the middle of an exit from a guest is where the emulation fails; and hosts have few for many tests.
            "-machine q35 -cpu max -accel tcg -smp 1",
            "-nodefaults -no-reboot -display none",
            "-device virtio-serial-pci",
        ];
        let mut all: Vec<OsString> = words
            .iter()
            .flat_map(|words| words.split(' '))
            .map(OsString::from)
            .collect();
        let mut add = |option: &str, value: OsString| all.extend([option.into(), value]);
        add("-m", MEMORY_MIB.to_string().into());
        add("-kernel", self.kernel.clone().into());
        add("-initrd", self.initrd.clone().into());
        // Mitigations protect nobody here, and cost.
        let mut line =
            OsString::from("console=ttyS0 quiet panic=-1 mitigations=off nested.command=");
        line.push(script);
        add("-append", line);
        let with_path = |before: &str, path: PathBuf| {
            let mut value = OsString::from(before);
            // A comma ends a value for QEMU, two are one.
            value.push(path.to_string_lossy().replace(',', ",,"));
            value
        };
        add("-serial", with_path("file:", file("console")));
        for name in PORTS {
            let backend = format!("file,id={name},path=");
            add("-chardev", with_path(&backend, file(name)));
            add("-device", format!("virtserialport,chardev={name}").into());
        }
        let files = "local,id=below,path=/,security_model=none,readonly=on,multidevs=remap";
        add("-fsdev", files.into());
        let device = "virtio-9p-pci,fsdev=below,mount_tag=below";
        add("-device", device.into());
        all
    }
}

/// Waits for its end, or ends it; what it means if there is no exit code.
fn wait(mut qemu: Child, beats: &Path, limit: Duration) -> io::Result<End> {
    let began = Instant::now();
    let (mut heard, mut last) = (0, began);
    while qemu.try_wait()?.is_none() {
        let beats = fs::metadata(beats).map_or(0, |file| file.len());
        if beats != heard {
            (heard, last) = (beats, Instant::now());
        }
        let silence = if heard == 0 { BOOT } else { SILENCE };
        let end = match (began.elapsed() > limit, last.elapsed() > silence) {
            (true, _) => End::Late,
            (false, true) => End::HostDied,
            (false, false) => {
                std::thread::sleep(TICK);
                continue;
            }
        };
        qemu.kill()?;
        qemu.wait()?;
        return Ok(end);
    }
    // It ends itself after an exit code, or with its kernel.
    Ok(End::HostDied)
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 200;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
