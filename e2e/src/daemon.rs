//! One daemon in a directory of its own.

use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use api::client::Client;
use api::images::ImportImageQuery;

use crate::place::{self, Place};
use crate::processes::{self, Process};
use crate::wait::until;

/// What the daemon says when it is ready, with the address after it.
const LISTENING: &str = "listening address=";

/// For what a test has on the network to be removed at its end.
const TEARDOWN: Duration = Duration::from_secs(10);

/// A running daemon with the built-in image in it. When it is dropped, the daemon, its machines and its files go; the
/// daemon's log is printed first if the test failed.
#[derive(Debug)]
pub struct Daemon {
    place: Place,
    home: tempfile::TempDir,
    process: Option<Child>,
    /// Whose the process is; none = the test's own.
    user: Option<u32>,
    starts: u32,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    client: Client,
}

impl Daemon {
    /// Starts one, or prints why guests cannot run here.
    pub async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// As [`Daemon::start`], with more in the daemon's environment.
    pub async fn start_with(environment: &[(&str, &str)]) -> Option<Self> {
        let place = match Place::find() {
            Ok(place) => place,
            Err(why) => {
                println!("skipped: {why}");
                return None;
            }
        };
        let home = place::data_directory().expect("a data directory");
        place::copy_tree(&place.boot, &home.path().join("boot")).expect("kernel and initrd");
        let socket = home.path().join("coppiced.sock");
        let address = format!("unix://{}", socket.display())
            .parse()
            .expect("an address");
        let mut daemon = Self {
            client: Client::new(address, None).expect("a client"),
            http: unix_http(&socket),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            place,
            home,
            process: None,
            user: None,
            starts: 0,
        };
        daemon.run(environment).await;
        daemon.import().await;
        Some(daemon)
    }

    /// Starts the process and waits until it serves.
    async fn run(&mut self, environment: &[(&str, &str)]) {
        self.starts += 1;
        let log = self.log_path();
        let mut command = self.command();
        command
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("a log file"));
        self.process = Some(command.spawn().expect("coppiced starts"));
        self.address = until("the daemon to listen", async || {
            if let Some(process) = &mut self.process
                && let Ok(Some(status)) = process.try_wait()
            {
                panic!("coppiced ended with {status}:\n{}", self.log());
            }
            address_in(&self.log())
        })
        .await;
    }

    /// The daemon's program, set up for this directory.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.place.coppiced);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("COPPICE_DATA_DIR", self.data())
            .env("COPPICE_LISTEN", "127.0.0.1:0")
            .env("COPPICE_CONFIG", self.config_path())
            // Most tests count processes and need no network; those that do ask for it.
            .env("COPPICE_WARM_FORKS", "0")
            .env("COPPICE_ACCELERATOR", accelerator())
            .env("COPPICE_NETWORK", "off")
            // A host that runs guests without help from its processors is slow in all else.
            .env("COPPICE_PAGER_TAKEOVER", "1m")
            .env("NO_COLOR", "1");
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Gives program and directory to another user, who has no rights on the host, and starts it again as that user.
    pub async fn become_user(&mut self, user: u32, environment: &[(&str, &str)]) {
        self.kill();
        // Whether the user could reach the program where it was built is not the question.
        let program = self.data().join("coppiced");
        fs::copy(&self.place.coppiced, &program).expect("the program is copied");
        self.place.coppiced = program;
        place::give(self.data(), user).expect("the directory is given away");
        self.user = Some(user);
        self.run(environment).await;
    }

    /// An empty file: the host's own configuration is none of the tests' business.
    fn config_path(&self) -> PathBuf {
        let path = self.home.path().join("config.toml");
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .expect("an empty file");
        path
    }

    async fn import(&self) {
        let archive = tokio::fs::File::open(&self.place.image)
            .await
            .expect("the image's archive");
        let query = ImportImageQuery {
            name: Some("busybox".to_owned()),
            platform: None,
        };
        self.client
            .import_image(&query, archive)
            .await
            .expect("the image is imported");
    }

    /// SIGKILL: it gets no chance to tidy up. Its machines run on.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Starts it again on the same directory.
    pub async fn revive(&mut self) {
        assert!(self.process.is_none(), "it runs");
        self.run(&[]).await;
    }

    /// [`Daemon::restart`] with more in the daemon's environment.
    pub async fn restart_with(&mut self, environment: &[(&str, &str)]) {
        self.kill();
        self.run(environment).await;
    }

    /// [`Daemon::kill`] and [`Daemon::revive`].
    pub async fn restart(&mut self) {
        self.kill();
        self.revive().await;
    }

    /// The typed client, over the unix socket.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.home.path()
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The command line's program, told to talk to this daemon over its unix socket.
    #[must_use]
    pub fn coppice(&self) -> Command {
        let mut command = Command::new(&self.place.coppice);
        let socket = self.data().join("coppiced.sock");
        command
            .env_clear()
            .env("COPPICE_HOST", format!("unix://{}", socket.display()));
        command
    }

    /// A token made by `coppiced token`.
    #[must_use]
    pub fn token(&self, scopes: Option<&str>) -> String {
        let mut command = self.command();
        command.arg("token");
        if let Some(scopes) = scopes {
            command.args(["--scopes", scopes]);
        }
        let output = command.output().expect("coppiced runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().to_owned()
    }

    /// The processes of its machines.
    #[must_use]
    pub fn machines(&self) -> Vec<Process> {
        processes::belonging_to(self.data())
            .into_iter()
            .filter(|process| process.instance.is_some())
            .collect()
    }

    /// The one process that runs an instance.
    #[must_use]
    pub fn machine(&self, instance: &str) -> Process {
        let mut found: Vec<Process> = self.machines();
        found.retain(|process| process.instance.as_deref() == Some(instance));
        assert_eq!(found.len(), 1, "processes of {instance}: {found:?}");
        found.remove(0)
    }

    /// Kills the pagers of its images, and gives how many there were.
    pub fn kill_pagers(&self) -> usize {
        let place = self.data().join("pagers").display().to_string();
        let mut found = processes::belonging_to(self.data());
        found.retain(|process| {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&place)
        });
        found.iter().for_each(|pager| processes::kill(pager.pid));
        found.len()
    }

    /// Everything that the daemon has written since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Removes namespaces and interfaces, which are no files of the directory. That is refused until
    /// the machines that were killed are gone for the kernel too.
    fn tear_down(&self) {
        let deadline = Instant::now() + TEARDOWN;
        while Instant::now() < deadline {
            let output = self.command().arg("teardown").output();
            if output.is_ok_and(|output| output.status.success()) {
                return;
            }
        }
    }

    fn log_path(&self) -> PathBuf {
        self.home
            .path()
            .join(format!("coppiced-{}.log", self.starts))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        processes::end_all(self.home.path());
        if self.data().join("network.mark").exists() {
            self.tear_down();
        }
        if std::thread::panicking() {
            for start in 1..=self.starts {
                let path = self.home.path().join(format!("coppiced-{start}.log"));
                let text = fs::read_to_string(path).unwrap_or_default();
                println!("--- the daemon's log, start {start}\n{text}");
            }
        }
    }
}

/// What the tests' runner has found out about KVM; without it each daemon looks for itself.
fn accelerator() -> String {
    std::env::var("COPPICE_TEST_ACCELERATOR").unwrap_or_else(|_| "auto".to_owned())
}

fn unix_http(socket: &Path) -> reqwest::Client {
    reqwest::Client::builder()
        .unix_socket(socket)
        .no_proxy()
        .build()
        .expect("an HTTP client")
}

fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(LISTENING)?;
    rest.split_whitespace().next()?.parse().ok()
}
