//! `fork`: copies of an instance, memory included.

use api::client::Client;
use api::instances::{ForkManyResponse, ForkRequest, ForkTarget};

use super::find;
use super::network::{self, Regroup};
use crate::args::{ForkArgs, TargetArg};
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;
use crate::settings::{Here, Surroundings};
use crate::words;

pub(crate) async fn fork(
    client: &Client,
    printer: &Printer,
    args: ForkArgs,
) -> Result<(), Failure> {
    let source = args.source.clone();
    let request = request(client, args).await?;
    let progress = printer.spinner(match request.count {
        Some(count) => format!("forking {source} {count} times"),
        None => format!("forking {source}"),
    });
    if request.count.is_none() {
        let outcome = client.fork(&source, &request).await;
        drop(progress);
        return match outcome {
            Ok(fork) => Ok(printer.show(&fork, |fork| fork.name.clone())?),
            Err(error) => Err(explain::instance(client, &source, Deed::Fork, error).await),
        };
    }
    let outcome = client.fork_many(&source, &request).await;
    drop(progress);
    match outcome {
        Ok(made) => tell(printer, &made),
        Err(error) => Err(explain::instance(client, &source, Deed::Fork, error).await),
    }
}

async fn request(client: &Client, args: ForkArgs) -> Result<ForkRequest, Failure> {
    let env = words::env(&args.env, |name| Here.variable(name))?;
    let tags = words::tags(&args.tags)?;
    let given = (!tags.is_empty()).then_some(tags);
    let regroup = Regroup::of(&args.network);
    let name = args.name.or(args.name_flag);
    let source = match name.is_none() || regroup.needs_present(given.as_ref()) {
        true => Some(find(client, &args.source).await?),
        false => None,
    };
    let name = match name {
        Some(name) => name,
        // The source may be given by id, which makes no good name.
        None => words::name_like(source.as_ref().map_or("", |source| &source.name))?,
    };
    let present = source.map(|source| source.tags).unwrap_or_default();
    let template_id = match &args.template {
        Some(template) => Some(find(client, template).await?.id),
        None => None,
    };
    Ok(ForkRequest {
        // The source's: there is nothing to choose.
        hypervisor: None,
        name,
        from_running: args.from_running.then_some(true),
        target_state: args.target_state.map(|target| match target {
            TargetArg::Running => ForkTarget::Running,
            TargetArg::Standby => ForkTarget::Standby,
            TargetArg::Stopped => ForkTarget::Stopped,
        }),
        count: args.count,
        share_memory: args.share_memory,
        template_id,
        env: (!env.is_empty()).then_some(env),
        tags: regroup.labels(given.as_ref(), &present)?,
        post_fork: args.post_fork.hook(),
        network: network::of_changed(args.network, false)?,
        memory_backend: args.memory_backend.map(Into::into),
    })
}

/// Names of the forks to stdout, failures to stderr; any failure shows in the
/// exit code.
fn tell(printer: &Printer, made: &ForkManyResponse) -> Result<(), Failure> {
    printer.show(made, |made| {
        let names: Vec<&str> = made
            .forks
            .iter()
            .filter_map(|fork| Some(fork.instance.as_ref()?.name.as_str()))
            .collect();
        names.join("\n")
    })?;
    let mut failed = false;
    for fork in &made.forks {
        if let Some(error) = &fork.error {
            failed = true;
            let name = fork.name.as_deref().unwrap_or("a fork");
            printer.remark(&format!("error: {name}: {}", error.message));
        }
    }
    if failed { Err(Failure::told()) } else { Ok(()) }
}
