//! Machines and what runs in them.

use api::client::{ClientError, ExecEvent};
use api::exec::{ExecStart, ExecStreams};
use serde_json::{Value, json};

use crate::Daemon;
use crate::wait::until;

/// A program that keeps a number in its memory, and nowhere else. It counts on when it is asked to, so it costs nothing
/// while it waits; told to exit it exits with 7.
pub const COUNTER: &str = "mkfifo /dev/shm/ask /dev/shm/answer; n=0; \
    while read -r word < /dev/shm/ask; do \
    [ $word = exit ] && exit 7; n=$((n + 1)); echo $n > /dev/shm/answer; done";

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
    /// Its exit code.
    pub code: i32,
}

/// A small machine that runs [`COUNTER`].
#[must_use]
pub fn plain_create(name: &str) -> Value {
    json!({
        "name": name,
        "image": "busybox",
        "size": "128MB",
        "overlay_size": "64MB",
        "vcpus": 1,
        "cmd": ["/bin/sh", "-c", COUNTER],
    })
}

/// A fork request that shares the source's memory.
#[must_use]
pub fn share(name: &str) -> Value {
    json!({ "name": name, "share_memory": true })
}

impl Daemon {
    /// Boots a small machine that runs [`COUNTER`], waits until it runs, and gives its id.
    pub async fn boot(&self, name: &str) -> String {
        self.boot_as(plain_create(name)).await
    }

    /// Boots what is asked for, which must run [`COUNTER`], waits until that counts, and gives its id.
    pub async fn boot_as(&self, request: Value) -> String {
        let made = self.post("/instances", request).await.expect(201);
        let id = made["id"].as_str().expect("an id").to_owned();
        self.wait_for(&id, "Running").await;
        self.wait_for_counter(&id).await;
        id
    }

    /// Waits until [`COUNTER`] listens: it has started when its machine is running, but not done anything yet.
    pub async fn wait_for_counter(&self, instance: &str) {
        self.sh(
            instance,
            "until [ -p /dev/shm/answer ]; do usleep 10000; done",
        )
        .await;
    }

    /// A template whose counter stands at 1, made by booting; gives its id.
    pub async fn template(&self, name: &str) -> String {
        let id = self.boot(name).await;
        assert_eq!(self.count(&id).await, 1);
        self.act(&id, "standby").await.expect(200);
        self.act(&id, "promote-template").await.expect(200);
        id
    }

    /// A fork that shares its source's memory and runs; gives its id.
    pub async fn sprout(&self, source: &str, name: &str) -> String {
        let fork = self.fork(source, share(name)).await.expect(201);
        assert_eq!(fork["state"], "Running", "{fork}");
        fork["id"].as_str().expect("an id").to_owned()
    }

    /// Forks that share their source's memory and run, made in one call; gives their ids.
    pub async fn sprouts(&self, source: &str, name: &str, count: usize) -> Vec<String> {
        let request = json!({ "name": name, "share_memory": true, "count": count });
        let answer = self.fork(source, request).await.expect(201);
        let forks = answer["forks"].as_array().expect("a list");
        forks
            .iter()
            .map(|entry| {
                let id = entry["instance"]["id"].as_str();
                id.unwrap_or_else(|| panic!("{entry}")).to_owned()
            })
            .collect()
    }

    /// Waits until an instance is in a state.
    pub async fn wait_for(&self, instance: &str, state: &str) {
        until(&format!("{instance} to be {state}"), async || {
            (self.state(instance).await == state).then_some(())
        })
        .await;
    }

    /// Runs a command to its end.
    pub async fn try_exec(&self, instance: &str, argv: &[&str]) -> Result<Output, ClientError> {
        let start = ExecStart {
            command: argv.iter().map(|word| (*word).to_owned()).collect(),
            streams: ExecStreams::Tagged,
            timeout: Some(60),
            ..ExecStart::default()
        };
        let mut session = self.client().exec(instance, &start).await?;
        session.input.end().await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let code = loop {
            match session.output.next().await? {
                ExecEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                ExecEvent::Stderr(bytes) => stderr.extend_from_slice(&bytes),
                ExecEvent::Exit(code) => break code,
            }
        };
        Ok(Output {
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            code,
        })
    }

    /// Runs a command to its end.
    pub async fn exec(&self, instance: &str, argv: &[&str]) -> Output {
        self.try_exec(instance, argv)
            .await
            .unwrap_or_else(|error| panic!("exec {argv:?} in {instance}: {error:?}"))
    }

    /// Runs a line of shell, checks that it succeeds and gives what it printed.
    pub async fn sh(&self, instance: &str, line: &str) -> String {
        let output = self.exec(instance, &["/bin/sh", "-c", line]).await;
        assert_eq!(output.code, 0, "{line}: {output:?}");
        output.stdout.trim_end().to_owned()
    }

    /// Has [`COUNTER`] count on, and gives where it stands.
    pub async fn count(&self, instance: &str) -> u64 {
        let text = self
            .sh(instance, "echo on > /dev/shm/ask; cat /dev/shm/answer")
            .await;
        text.parse()
            .unwrap_or_else(|_| panic!("not a number: {text:?}"))
    }
}
