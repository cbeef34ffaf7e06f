//! A daemon of our own in a temporary directory, for demo and benchmarks.
//!
//! Whatever way its owner ends, dropping [`PrivateDaemon`] ends the daemon and every VMM that it
//! started, and removes the directory and its network. Nothing of the user's own coppice is touched: neither its
//! configuration nor its variables nor its port.

mod programs;
mod vmms;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::client::Client;
use boot::Assets;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

pub(crate) use programs::Programs;
pub(crate) use vmms::Vmm;

/// For the daemon to look at KVM, which may take a trial guest, and to answer.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// For the daemon to end when told to; its own limit for requests under way is 10 s.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// Between two looks at something that is about to happen.
const TICK: Duration = Duration::from_millis(10);

/// A running daemon.
pub(crate) struct PrivateDaemon {
    home: TempDir,
    process: Child,
    coppice: PathBuf,
    coppiced: PathBuf,
}

impl PrivateDaemon {
    /// Starts a daemon with its data in a new directory below `parent`, and waits until it answers.
    /// `flags` come after those that make it private.
    pub(crate) async fn start(
        programs: &Programs,
        assets: &Assets,
        parent: &Path,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new()
            .prefix("coppice-")
            .tempdir_in(parent)
            .with_context(|| format!("make a directory in {}", parent.display()))?;
        let config = home.path().join("empty.toml");
        fs::write(&config, "").context("write an empty configuration")?;
        let log = File::create(home.path().join(LOG)).context("create the daemon's log")?;
        let mut command = without_settings(&programs.coppiced);
        command
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(home.path().join(DATA))
            // The daemon listens on a port of the system's choice; we use the socket.
            .args(["--listen", "127.0.0.1:0"])
            .arg("--kernel")
            .arg(&assets.kernel)
            .arg("--initrd")
            .arg(&assets.initrd)
            .args(flags)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // A terminal's interrupt key is for us, who then end the daemon.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let process = command.spawn().context("start coppiced")?;
        let mut daemon = Self {
            home,
            process,
            coppice: programs.coppice.clone(),
            coppiced: programs.coppiced.clone(),
        };
        daemon.wait_until_it_answers().await?;
        Ok(daemon)
    }

    async fn wait_until_it_answers(&mut self) -> anyhow::Result<()> {
        let client = self.client()?;
        let deadline = Instant::now() + START_DEADLINE;
        while let Err(error) = client.health().await {
            let ended = self.process.try_wait().context("look at coppiced")?;
            if let Some(status) = ended {
                bail!("coppiced: {status}\n{}", self.log_tail(20));
            }
            if Instant::now() > deadline {
                return Err(error).context("coppiced does not answer");
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// Directory of this daemon's records, images and instances.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home.path().join(DATA)
    }

    /// The directory that is removed in the end.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The API's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.data_dir().join("coppiced.sock")
    }

    /// A client of it.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let address = format!("unix://{}", self.socket().display()).parse()?;
        Ok(Client::new(address, None)?)
    }

    /// The `coppice` program, set to speak to this daemon.
    pub(crate) fn coppice(&self) -> Command {
        let mut command = without_settings(&self.coppice);
        let host = format!("unix://{}", self.socket().display());
        command.env("COPPICE_HOST", host).stdin(Stdio::null());
        command
    }

    /// VMMs of this daemon that are alive.
    pub(crate) fn vmms(&self) -> Vec<Vmm> {
        vmms::alive(&self.data_dir().join("instances"))
    }

    /// The VMM of one instance.
    pub(crate) fn vmm(&self, instance_id: &str) -> anyhow::Result<Vmm> {
        let dir = self.data_dir().join("instances").join(instance_id);
        Vmm::of(&dir).with_context(|| format!("instance {instance_id} has no VMM"))
    }

    /// The last lines of the daemon's log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(self.home.path().join(LOG)).unwrap_or_default();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Tells the daemon to stop and waits until it has. Machines would run on.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        // A process number fits: the kernel's limit is 2^22.
        let pid = i32::try_from(self.process.id())?;
        let pid = Pid::from_raw(pid).context("no process")?;
        rustix::process::kill_process(pid, Signal::TERM).context("stop coppiced")?;
        let deadline = Instant::now() + STOP_DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().context("look at coppiced")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("coppiced does not stop");
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        // First the daemon, so that it starts nothing any more. Both calls do nothing if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for vmm in self.vmms() {
            vmm.kill();
        }
        // What it has on the host beside its files; the edge would serve on.
        // A VMM that was killed counts as running until somebody has looked at its end.
        let deadline = Instant::now() + STOP_DEADLINE;
        while !self.tear_down() && Instant::now() < deadline {
            std::thread::sleep(TICK);
        }
    }
}

impl PrivateDaemon {
    /// Whether nothing is left on the host beside the files.
    fn tear_down(&self) -> bool {
        let status = without_settings(&self.coppiced)
            .arg("--config")
            .arg(self.home.path().join("empty.toml"))
            .arg("--data-dir")
            .arg(self.data_dir())
            .arg("teardown")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }
}

/// Name of the data directory in the home.
const DATA: &str = "data";

/// Name of the daemon's log in the home.
const LOG: &str = "coppiced.log";

/// A command that sees none of the user's own settings of coppice.
fn without_settings(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("COPPICE_") || text.starts_with("HYPEMAN_") {
            command.env_remove(&name);
        }
    }
    command
}
