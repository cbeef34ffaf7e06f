//! The same QEMU, started by hand: what a fork would cost if there were no coppice.
//!
//! Arguments are those of a running fork, taken from the process itself; its directory is exchanged
//! for one of our own, and the descriptors it inherited are made anew. All files are prepared before the
//! clock runs, which flatters the reference.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use guest::{ExecSpec, Identity, Link, MIN_ENTROPY, Output};
use hypervisor::disk::create_overlay;
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::lab::Lab;

/// For a guest to answer.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where the size of the disk is in a qcow2 header, big-endian.
const QCOW2_SIZE_AT: u64 = 24;

/// How forks are started.
pub(super) struct Recipe {
    program: PathBuf,
    arguments: Vec<String>,
    instance_dir: PathBuf,
    ram: PathBuf,
    state: PathBuf,
}

impl Recipe {
    /// Learns it from the idle fork, which must live as long as the recipe is used.
    pub(super) fn of(lab: &Lab<'_>) -> anyhow::Result<Self> {
        let pid = lab.daemon.vmm(&lab.model.id)?.pid;
        let instance_dir = lab.daemon.data_dir().join("instances").join(&lab.model.id);
        let cmdline = fs::read_to_string(format!("/proc/{pid}/cmdline")).context("cmdline")?;
        let mut words = cmdline.trim_end_matches('\0').split('\0');
        words.next().context("no program")?;
        let arguments: Vec<_> = words.map(str::to_owned).collect();
        let ram = number_after(&arguments, RAM)?;
        let image = lab
            .model
            .memory
            .image_id
            .as_ref()
            .context("no memory image")?;
        Ok(Self {
            program: fs::read_link(format!("/proc/{pid}/exe")).context("exe")?,
            ram: format!("/proc/{pid}/fd/{ram}").into(),
            state: instance_dir.join("memory").join(image).join("state"),
            arguments,
            instance_dir,
        })
    }

    /// Makes everything that a fork needs but its process.
    pub(super) fn prepare(&self, parent: &Path) -> anyhow::Result<Prepared> {
        let home = tempfile::Builder::new()
            .prefix("hand-")
            .tempdir_in(parent)?;
        for part in ["disk", "logs"] {
            fs::create_dir(home.path().join(part))?;
        }
        self.link_disks(home.path())?;
        let ram = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.ram)
            .context("RAM")?;
        let sockets = ["qmp", "agent"].map(|name| UnixListener::bind(home.path().join(name)));
        let [qmp, agent] = sockets;
        let inherited: [(&str, OwnedFd); 4] = [
            (RAM, ram.into()),
            (
                STATE,
                File::open(&self.state).context("device state")?.into(),
            ),
            (QMP, qmp?.into()),
            (AGENT, agent?.into()),
        ];
        let from = self.instance_dir.to_str().context("not UTF-8")?;
        let to = home.path().to_str().context("not UTF-8")?;
        let mut arguments: Vec<_> = self
            .arguments
            .iter()
            .map(|word| word.replace(from, to))
            .collect();
        for (marker, fd) in &inherited {
            let old = number_after(&arguments, marker)?;
            let (old, new) = (
                format!("{marker}{old}"),
                format!("{marker}{}", fd.as_raw_fd()),
            );
            for word in &mut arguments {
                *word = word.replace(&old, &new);
            }
        }
        let mut command = Command::new(&self.program);
        let log = File::create(home.path().join("logs/vmm.log"))?;
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Prepared {
            home,
            command,
            inherited: inherited.map(|(_, fd)| fd),
        })
    }

    /// The chain below is linked as it is; the layer on top is an empty one.
    fn link_disks(&self, home: &Path) -> anyhow::Result<()> {
        let mut files: Vec<_> = fs::read_dir(self.instance_dir.join("disk"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<_>>()?;
        files.sort();
        let top = files.pop().context("no disk")?;
        let name = |path: &Path| path.file_name().map(|name| home.join("disk").join(name));
        for file in files {
            fs::hard_link(&file, name(&file).context("no name")?)?;
        }
        let mut size = [0; 8];
        File::open(&top)?.read_exact_at(&mut size, QCOW2_SIZE_AT)?;
        create_overlay(&name(&top).context("no name")?, u64::from_be_bytes(size))?;
        Ok(())
    }
}

/// What comes right before the numbers of inherited descriptors on QEMU's command line.
const RAM: &str = "mem-path=/proc/self/fd/";
const STATE: &str = "fd:";
const QMP: &str = "id=qmp,fd=";
const AGENT: &str = "id=agent,fd=";

fn number_after(arguments: &[String], marker: &str) -> anyhow::Result<String> {
    let found = arguments.iter().find_map(|word| {
        let (_, rest) = word.split_once(marker)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then_some(digits)
    });
    found.with_context(|| format!("QEMU was started without {marker}"))
}

/// A fork that only lacks its process.
pub(super) struct Prepared {
    home: TempDir,
    command: Command,
    inherited: [OwnedFd; 4],
}

impl Prepared {
    /// Starts it.
    pub(super) fn spawn(mut self) -> anyhow::Result<HandMade> {
        for fd in &self.inherited {
            rustix::io::fcntl_setfd(fd.as_fd(), rustix::io::FdFlags::empty())?;
        }
        let process = self.command.spawn().context("start QEMU")?;
        Ok(HandMade {
            process,
            home: self.home,
        })
    }
}

/// A fork without coppice.
pub(super) struct HandMade {
    process: Child,
    home: TempDir,
}

impl HandMade {
    /// Makes it a machine of its own and runs a command in it.
    pub(super) async fn answer(&self) -> anyhow::Result<()> {
        let stream = UnixStream::connect(self.home.path().join("agent")).await?;
        let (link, _events) = Link::connect(stream, DEADLINE).await?;
        link.resume(identity()?, DEADLINE).await?;
        let spec = ExecSpec {
            argv: vec!["true".to_owned()],
            ..ExecSpec::default()
        };
        let (_input, mut output) = link.exec(spec).await?.split();
        while let Some(event) = output.next().await? {
            match event {
                Output::Exit(status) if status.code == 0 => return Ok(()),
                Output::Exit(status) => bail!("true ended with {status:?}"),
                Output::Stdout(_) | Output::Stderr(_) => {}
            }
        }
        bail!("no end of the command")
    }
}

impl Drop for HandMade {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn identity() -> anyhow::Result<Identity> {
    let mut entropy = vec![0; MIN_ENTROPY];
    getrandom::fill(&mut entropy)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(Identity {
        instance_id: "by-hand".to_owned(),
        hostname: "by-hand".to_owned(),
        entropy,
        wall_clock_ns: u64::try_from(now.as_nanos())?,
        new_machine: true,
        ..Identity::default()
    })
}
