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
    /// Its exit code; none if the machine ended without one, or the time was over.
    pub code: Option<i32>,
    /// The end of what the machine's kernel said.
    pub console: String,
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
        wait(qemu.spawn()?, limit)?;
        let read = |name: &str| {
            let bytes = fs::read(file(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let console = format!("{}{}", read("qemu"), read("console"));
        Ok(Output {
            text: read(PORTS[0]),
            code: read(PORTS[1]).trim().parse().ok(),
            console: last_lines(&console),
        })
    }

    fn arguments(&self, script: &Path, file: &dyn Fn(&str) -> PathBuf) -> Vec<OsString> {
        let words = [
            // SVM with nested paging: kvm-amd takes it for what it is.
            "-machine q35 -cpu max -accel tcg,thread=multi -smp 2",
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

/// Waits for its end, or ends it.
fn wait(mut qemu: Child, limit: Duration) -> io::Result<()> {
    let began = Instant::now();
    while qemu.try_wait()?.is_none() {
        if began.elapsed() > limit {
            qemu.kill()?;
            qemu.wait()?;
            break;
        }
        std::thread::sleep(TICK);
    }
    Ok(())
}

fn last_lines(text: &str) -> String {
    const LINES: usize = 200;
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}
