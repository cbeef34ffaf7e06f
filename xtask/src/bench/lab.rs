//! The machines that the measurements are made on: one template of 256 MiB, and one idle fork of it
//! that shows how forks are started.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use api::client::{Client, ExecEvent};
use api::exec::ExecStart;
use api::images::ImportImageQuery;
use api::instances::{
    CreateInstanceRequest, DeleteInstanceQuery, ForkRequest, ForkTarget, Instance, NetworkRequest,
    StandbyRequest, WaitQuery,
};

use crate::private_daemon::PrivateDaemon;

/// RAM of every guest.
const GUEST_RAM: &str = "256MB";

/// Name of the built-in image.
const IMAGE: &str = "coppice-busybox";

/// Machines and how to act on them.
pub(super) struct Lab<'a> {
    pub(super) daemon: &'a PrivateDaemon,
    pub(super) client: Client,
    /// Source of all forks.
    pub(super) template: Instance,
    /// A fork that idles all the time.
    pub(super) model: Instance,
    quick: bool,
}

impl<'a> Lab<'a> {
    /// Imports the image and makes the template.
    pub(super) async fn open(
        daemon: &'a PrivateDaemon,
        archive: &Path,
        quick: bool,
    ) -> anyhow::Result<Self> {
        let client = daemon.client()?;
        let file = tokio::fs::File::open(archive)
            .await
            .context("open the image")?;
        client
            .import_image(&ImportImageQuery::default(), file)
            .await?;
        let source = boot(&client, "template").await?;
        exec(&client, &source.id, &["true"]).await?;
        client
            .standby(&source.id, &StandbyRequest::default())
            .await?;
        let template = client.promote_template(&source.id).await?;
        let model = client.fork(&template.id, &named("model")).await?;
        Ok(Self {
            daemon,
            client,
            template,
            model,
            quick,
        })
    }

    /// How many samples to take.
    pub(super) fn samples(&self, full: u32, quick: u32) -> u32 {
        if self.quick { quick } else { full }
    }

    /// A template that has run a command.
    pub(super) async fn template_of(
        &self,
        name: &str,
        connected: bool,
        command: &[&str],
    ) -> anyhow::Result<Instance> {
        let source = boot_with(&self.client, name, connected).await?;
        exec(&self.client, &source.id, command).await?;
        self.client
            .standby(&source.id, &StandbyRequest::default())
            .await?;
        Ok(self.client.promote_template(&source.id).await?)
    }

    /// Boots a machine and waits until it runs.
    pub(super) async fn boot(&self, name: &str) -> anyhow::Result<Instance> {
        boot(&self.client, name).await
    }

    /// One running fork of the template.
    pub(super) async fn fork(&self, name: &str) -> anyhow::Result<Instance> {
        Ok(self.client.fork(&self.template.id, &named(name)).await?)
    }

    /// Running forks of the template, made in one call.
    pub(super) async fn forks(&self, name: &str, count: u32) -> anyhow::Result<Vec<Instance>> {
        let request = ForkRequest {
            count: Some(count),
            ..named(name)
        };
        let answer = self.client.fork_many(&self.template.id, &request).await?;
        let made = answer.forks.into_iter().map(|outcome| {
            let error = outcome.error.map(|error| error.message).unwrap_or_default();
            outcome
                .instance
                .with_context(|| format!("fork failed: {error}"))
        });
        made.collect()
    }

    /// Runs a command to its success.
    pub(super) async fn exec(&self, id: &str, command: &[&str]) -> anyhow::Result<()> {
        exec(&self.client, id, command).await
    }

    /// Removes a machine without ceremony.
    pub(super) async fn remove(&self, id: &str) -> anyhow::Result<()> {
        let query = DeleteInstanceQuery {
            graceful_shutdown: Some(false),
        };
        Ok(self.client.delete_instance(id, &query).await?)
    }

    /// Removes several.
    pub(super) async fn remove_all(&self, instances: &[Instance]) -> anyhow::Result<()> {
        for instance in instances {
            self.remove(&instance.id).await?;
        }
        Ok(())
    }
}

/// A fork request with nothing but a name.
pub(super) fn named(name: &str) -> ForkRequest {
    ForkRequest {
        name: name.to_owned(),
        target_state: Some(ForkTarget::Running),
        ..ForkRequest::default()
    }
}

async fn boot(client: &Client, name: &str) -> anyhow::Result<Instance> {
    boot_with(client, name, true).await
}

async fn boot_with(client: &Client, name: &str, connected: bool) -> anyhow::Result<Instance> {
    let request = CreateInstanceRequest {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        size: Some(GUEST_RAM.to_owned()),
        vcpus: Some(1),
        network: (!connected).then(|| NetworkRequest {
            enabled: Some(false),
            ..NetworkRequest::default()
        }),
        ..CreateInstanceRequest::default()
    };
    let instance = client.create_instance(&request).await?;
    let query = WaitQuery {
        state: api::instances::InstanceState::Running,
        timeout: Some("120s".to_owned()),
    };
    let waited = client.wait(&instance.id, &query).await?;
    if waited.timed_out {
        bail!("{name} does not boot");
    }
    Ok(instance)
}

async fn exec(client: &Client, id: &str, command: &[&str]) -> anyhow::Result<()> {
    let start = ExecStart {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..ExecStart::default()
    };
    let mut session = client.exec(id, &start).await?;
    let exited = async {
        loop {
            if let ExecEvent::Exit(code) = session.output.next().await? {
                return anyhow::Ok(code);
            }
        }
    };
    let code = tokio::time::timeout(Duration::from_secs(120), exited)
        .await
        .with_context(|| format!("{command:?} does not end"))??;
    if code != 0 {
        bail!("{command:?} ended with {code}");
    }
    Ok(())
}
