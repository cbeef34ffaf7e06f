//! `run`: make an instance and wait until it runs.

use api::client::Client;
use api::instances::{Instance, InstanceState, WaitQuery, WaitResponse};

use super::create;
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::printer::Printer;

pub(crate) async fn run(client: &Client, printer: &Printer, args: RunArgs) -> Result<(), Failure> {
    let request = create::request(args.create)?;
    let progress = printer.spinner(format!("making {}", request.name));
    let made = create::send(client, &request).await?;
    progress.say(format!("booting {}", made.name));
    let query = WaitQuery {
        state: InstanceState::Running,
        timeout: Some(args.wait_timeout),
    };
    let seen = client.wait(&made.id, &query).await?;
    let instance = client.get_instance(&made.id).await?;
    drop(progress);
    printer.show(&instance, |instance| instance.name.clone())?;
    judge(printer, &seen, &instance)
}

/// A program that has ended by itself has run too.
fn judge(printer: &Printer, seen: &WaitResponse, instance: &Instance) -> Result<(), Failure> {
    let name = &instance.name;
    if seen.state == InstanceState::Running {
        return Ok(());
    }
    if seen.timed_out {
        return Err(
            Failure::plain(format!("{name} does not run yet, it is {}", seen.state)).hint(format!(
                "`coppice wait {name}` waits longer, `coppice logs {name}` shows what it does"
            )),
        );
    }
    let logs = format!("`coppice logs {name}` shows what it wrote");
    match (instance.exit_code, &instance.state_error) {
        (Some(0), _) => {
            printer.remark(&format!("{name} has ended already, with exit code 0"));
            Ok(())
        }
        (Some(code), _) => {
            Err(Failure::plain(format!("{name} ended with exit code {code}")).hint(logs))
        }
        (None, Some(error)) => {
            Err(Failure::plain(format!("{name} is {}: {error}", seen.state)).hint(logs))
        }
        (None, None) => Err(Failure::plain(format!(
            "{name} came to be {} without running",
            seen.state
        ))
        .hint(format!(
            "`coppice logs {name}` and `coppice logs --source vmm {name}` may say why"
        ))),
    }
}
