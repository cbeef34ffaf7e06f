//! What sharing saves, and what it forbids.

use api::client::ClientError;
use api::instances::{DeleteInstanceQuery, Instance, InstanceState, InstanceStats};
use serde::Deserialize;

use super::cli::Cli;
use super::screen::Screen;
use super::{FORKS, SOURCE};

/// The status with which a state forbids an operation.
const CONFLICT: u16 = 409;

/// A line of `coppice ps --memory --json`.
#[derive(Deserialize)]
struct Line {
    instance: Instance,
    stats: Option<InstanceStats>,
}

/// Shared and private memory of each fork.
pub(super) async fn memory(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("Nine machines in the memory of little more than one");
    cli.shown(screen, &["ps", "--all", "--memory"]).await?;
    cli.shown(screen, &["tree"]).await?;
    let lines: Vec<Line> = cli.json(&["ps", "--all", "--memory"]).await?;
    let stats = |line: &Line| line.stats.as_ref().and_then(|stats| stats.memory.clone());
    let forks = lines
        .iter()
        .filter(|line| line.instance.fork_of_template.is_some());
    let forks: Vec<_> = forks.filter_map(stats).collect();
    screen.check(
        "every fork is listed",
        forks.len() == usize::try_from(FORKS)?,
    )?;
    let ram: u64 = forks.iter().map(|fork| fork.guest_ram_bytes).sum();
    let private: u64 = forks
        .iter()
        .map(|fork| fork.private_bytes + fork.vmm_private_bytes)
        .sum();
    screen.check(
        "every fork uses memory of the template",
        forks.iter().all(|fork| fork.shared_with_image_bytes > 0),
    )?;
    screen.check(
        format_args!(
            "their {} MiB of RAM cost {} MiB, VMMs and all",
            ram >> 20,
            private >> 20
        ),
        private > 0 && private < ram / 4,
    )?;
    let template = lines.iter().find(|line| line.instance.name == SOURCE);
    let saved = template.and_then(|line| Some(line.stats.as_ref()?.template.as_ref()?.saved_bytes));
    screen.check(
        "the template says what it saves",
        saved.is_some_and(|bytes| bytes > 0),
    )
}

/// A template cannot wake or go while forks live from its memory.
pub(super) async fn refusals(cli: &Cli<'_>, screen: &mut Screen) -> anyhow::Result<()> {
    screen.chapter("The template is locked while forks live");
    let live = format!("{FORKS} live forks");
    let complaint = cli.refused(screen, &["restore", SOURCE]).await?;
    let status = refusal(cli.client.restore(SOURCE).await);
    screen.check(
        format_args!("restoring it is refused: {CONFLICT}, naming {live}"),
        complaint.contains(&live) && status == Some(CONFLICT),
    )?;
    let complaint = cli.refused(screen, &["rm", "--force", SOURCE]).await?;
    let query = DeleteInstanceQuery::default();
    let status = refusal(cli.client.delete_instance(SOURCE, &query).await);
    screen.check(
        format_args!("deleting it is refused: {CONFLICT}, naming {live}"),
        complaint.contains(&live) && status == Some(CONFLICT),
    )?;
    let template = cli.inspect(SOURCE).await?;
    let unharmed = template.state == InstanceState::Template && template.mem_locked;
    screen.check("it is the template that it was", unharmed)
}

fn refusal<T>(answer: Result<T, ClientError>) -> Option<u16> {
    let error = answer.err()?;
    (error.code() == Some("invalid_state")).then(|| error.status())?
}
