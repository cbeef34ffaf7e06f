//! Running `coppice` as a user does, and looking behind it.

use std::process::Output;

use anyhow::{Context, bail};
use api::client::Client;
use api::instances::Instance;
use serde::de::DeserializeOwned;
use tokio::process::Command;

use super::screen::Screen;
use crate::private_daemon::{PrivateDaemon, Vmm};

/// The command line and the daemon that it speaks to.
pub(super) struct Cli<'a> {
    daemon: &'a PrivateDaemon,
    /// For what the command line does not tell: status codes.
    pub(super) client: Client,
}

impl<'a> Cli<'a> {
    /// A command line for `daemon`.
    pub(super) fn new(daemon: &'a PrivateDaemon) -> anyhow::Result<Self> {
        let client = daemon.client()?;
        Ok(Self { daemon, client })
    }

    /// Shows a command, runs it, shows and gives its output.
    pub(super) async fn shown(&self, screen: &Screen, words: &[&str]) -> anyhow::Result<String> {
        screen.command(&with_program(words));
        let text = self.quiet(words).await?;
        screen.output(&text);
        Ok(text)
    }

    /// Shows a command that must be refused; shows and gives its complaint.
    pub(super) async fn refused(&self, screen: &Screen, words: &[&str]) -> anyhow::Result<String> {
        screen.command(&with_program(words));
        let output = self.output(words).await?;
        if output.status.success() {
            bail!("`coppice {}` was not refused", words.join(" "));
        }
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        screen.output(&complaint);
        Ok(complaint)
    }

    /// Runs a command and gives its output.
    pub(super) async fn quiet(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.output(words).await?;
        if !output.status.success() {
            bail!(
                "coppice {}: {}\n{}",
                words.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let text = String::from_utf8(output.stdout).context("output of coppice")?;
        Ok(text.trim_end().to_owned())
    }

    /// Runs a command with `--json`.
    pub(super) async fn json<T: DeserializeOwned>(&self, words: &[&str]) -> anyhow::Result<T> {
        let text = self.quiet(&[words, &["--json"]].concat()).await?;
        serde_json::from_str(&text).with_context(|| format!("coppice {} --json", words.join(" ")))
    }

    /// One instance.
    pub(super) async fn inspect(&self, name: &str) -> anyhow::Result<Instance> {
        self.json(&["inspect", name]).await
    }

    /// The process behind an instance.
    pub(super) async fn vmm(&self, name: &str) -> anyhow::Result<Vmm> {
        self.daemon.vmm(&self.inspect(name).await?.id)
    }

    /// All VMMs that are alive.
    pub(super) fn vmms(&self) -> Vec<Vmm> {
        self.daemon.vmms()
    }

    async fn output(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::from(self.daemon.coppice());
        command.args(words).kill_on_drop(true);
        command.output().await.context("run coppice")
    }
}

fn with_program<'w>(words: &[&'w str]) -> Vec<&'w str> {
    let mut all = vec!["coppice"];
    all.extend(words);
    all
}
