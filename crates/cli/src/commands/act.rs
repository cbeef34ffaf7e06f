//! `stop`, `restore`, `demote`: one call for each instance named.

use api::client::{Client, ClientError};
use api::instances::Instance;

use crate::args::InstancesArgs;
use crate::explain::{self, Deed};
use crate::failure::Failure;
use crate::printer::Printer;

/// What to do with each instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Stop,
    Restore,
    Demote,
}

impl Action {
    fn doing(self) -> &'static str {
        match self {
            Self::Stop => "stopping",
            Self::Restore => "waking",
            Self::Demote => "demoting",
        }
    }

    fn deed(self) -> Deed {
        match self {
            Self::Stop => Deed::Stop,
            Self::Restore => Deed::Restore,
            Self::Demote => Deed::Demote,
        }
    }

    async fn ask(self, client: &Client, name: &str) -> Result<Instance, ClientError> {
        match self {
            Self::Stop => client.stop(name).await,
            Self::Restore => client.restore(name).await,
            Self::Demote => client.demote_template(name).await,
        }
    }
}

/// Does it in the order given, and stops at the first refusal.
pub(crate) async fn act(
    client: &Client,
    printer: &Printer,
    action: Action,
    args: InstancesArgs,
) -> Result<(), Failure> {
    for name in &args.instances {
        let progress = printer.spinner(format!("{} {name}", action.doing()));
        let outcome = action.ask(client, name).await;
        drop(progress);
        match outcome {
            Ok(instance) => printer.show(&instance, |instance| instance.name.clone())?,
            Err(error) => {
                return Err(explain::instance(client, name, action.deed(), error).await);
            }
        }
    }
    Ok(())
}
