//! What may help after an error: hints, and the facts behind a refusal.

use api::client::{Client, ClientError};
use api::error::codes;
use api::instances::{Instance, InstanceState, ListInstancesQuery};

use crate::failure::Failure;

/// Forks that a hint names before it says how many more there are.
const FORKS_NAMED: usize = 5;

/// What was wanted of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    Start,
    Stop,
    Standby,
    Restore,
    Promote,
    Demote,
    Fork,
    /// Exec, cp, stat: something inside a running guest.
    Inside,
    Remove,
    /// Anything that no state refuses.
    Look,
}

/// What helps whatever was wanted.
pub(crate) fn general(error: &ClientError) -> Option<String> {
    let hint = match error {
        ClientError::Connect { .. } => {
            "is the daemon running? `coppiced` starts it; --host or COPPICE_HOST names another"
        }
        ClientError::Refused { status: 401, .. } => {
            "`coppice token` makes a token; give it in COPPICE_TOKEN or by --token-file"
        }
        ClientError::Refused { status: 403, .. } => {
            "the token lacks a scope; `coppice token --help` says how to make another"
        }
        ClientError::Refused { body, .. } => code_hint(&body.code)?,
        _ => return None,
    };
    Some(hint.to_owned())
}

fn code_hint(code: &str) -> Option<&'static str> {
    let hint = match code {
        codes::AMBIGUOUS => "give more of the id, or the name; `coppice ps -a` shows both",
        codes::PORT_IN_USE => {
            "take another port of the host, or free this one: `coppice ps` and `coppice ingress ls` \
             show ours, `ss -lntup` on the host those of programs"
        }
        codes::INSUFFICIENT_RESOURCES => {
            "stop, put in standby or remove instances; `coppice stats` shows what runs and what it uses"
        }
        codes::HOSTNAME_IN_USE => {
            "`coppice ingress ls` shows who has it; remove that one, or take another --hostname or --port"
        }
        codes::DOMAIN_NOT_ALLOWED => {
            "put NAME.crt and NAME.key for this host name into the daemon's directory of \
             certificates, by default /var/lib/coppice/certificates, and try again"
        }
        codes::INSTANCE_NOT_FOUND => {
            "`coppice ps -a` lists instances; `--to '{instance}:PORT'` takes the name from the host name"
        }
        codes::DEPENDENCY_MISSING => "`coppice doctor` says what the host lacks, and how to get it",
        _ => return None,
    };
    Some(hint)
}

/// What helps after an image could not be found.
pub(crate) fn image(name: &str, error: ClientError) -> Failure {
    if error.code() == Some(codes::NOT_FOUND) {
        missing(name, &error)
            .hint("`coppice image ls` lists images, `coppice image import` brings one in")
    } else {
        Failure::from(error)
    }
}

/// What helps after something was refused to an ingress.
pub(crate) fn ingress(name: &str, error: ClientError) -> Failure {
    match error.code() {
        Some(codes::NOT_FOUND) => missing(name, &error)
            .hint("`coppice ingress ls` lists ingresses by name, `coppice ingress create` makes one"),
        Some(codes::AMBIGUOUS) => Failure::from(error)
            .hint("give more of the id, or the name; `coppice ingress ls` shows the names"),
        Some(codes::ALREADY_EXISTS) => Failure::from(error).hint(format!(
            "`coppice ingress inspect {name}` shows the other one, `coppice ingress rm {name}` removes it"
        )),
        _ => Failure::from(error),
    }
}

/// What helps after something was refused to an instance; asks the server for
/// the facts behind the refusal.
pub(crate) async fn instance(
    client: &Client,
    name: &str,
    deed: Deed,
    error: ClientError,
) -> Failure {
    let hint = match error.code() {
        Some(codes::NOT_FOUND) => {
            return missing(name, &error)
                .hint("`coppice ps -a` lists all instances by name and id");
        }
        Some(codes::INVALID_STATE) => state_hint(client, name, deed).await,
        _ => None,
    };
    let failure = Failure::from(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Servers say that something was not found, and not always what.
fn missing(name: &str, error: &ClientError) -> Failure {
    Failure::plain(format!("{name}: {error}"))
}

async fn state_hint(client: &Client, name: &str, deed: Deed) -> Option<String> {
    // A hint is not worth a second error.
    let instance = client.get_instance(name).await.ok()?;
    if !instance.mem_locked || !needs_unlocked(deed) {
        return way_out(deed, &instance);
    }
    let query = ListInstancesQuery {
        fork_of: Some(instance.id.clone()),
        ..ListInstancesQuery::default()
    };
    let forks = client.list_instances(&query).await.ok()?;
    let names: Vec<&str> = forks.iter().map(|fork| fork.name.as_str()).collect();
    Some(locked_hint(&instance.name, &names))
}

/// Whether forks of a template are what stands in the way.
fn needs_unlocked(deed: Deed) -> bool {
    match deed {
        Deed::Start | Deed::Standby | Deed::Restore | Deed::Demote | Deed::Remove => true,
        Deed::Stop | Deed::Promote | Deed::Fork | Deed::Inside | Deed::Look => false,
    }
}

fn locked_hint(template: &str, forks: &[&str]) -> String {
    let mut named = forks[..forks.len().min(FORKS_NAMED)].join(", ");
    if forks.len() > FORKS_NAMED {
        named.push_str(&format!(" and {} more", forks.len() - FORKS_NAMED));
    }
    format!(
        "its memory is shared by {named}; see `coppice tree {template}` or `coppice ps -a`, and \
         remove the forks with `coppice rm` first"
    )
}

/// The command that leads from the state to what was wanted.
fn way_out(deed: Deed, instance: &Instance) -> Option<String> {
    use InstanceState as S;
    let name = &instance.name;
    let hint = match (deed, instance.state) {
        (Deed::Inside, S::Template) => format!("`coppice fork {name}` makes a running copy of it"),
        (Deed::Start | Deed::Standby | Deed::Restore | Deed::Stop, S::Template) => {
            format!("`coppice demote {name}` makes it an ordinary standby instance again")
        }
        (Deed::Inside | Deed::Start | Deed::Stop, S::Standby) => {
            format!("`coppice restore {name}` wakes it")
        }
        (Deed::Inside | Deed::Standby | Deed::Restore | Deed::Promote, S::Stopped) => {
            format!("`coppice start {name}` boots it")
        }
        (Deed::Promote, S::Running) => format!("`coppice standby {name}` puts it to sleep first"),
        (Deed::Fork, S::Running) => {
            "--from-running forks an instance while it runs; it is paused for a moment".to_owned()
        }
        (
            Deed::Inside | Deed::Standby | Deed::Promote | Deed::Fork,
            S::Created | S::Initializing,
        ) => {
            format!("`coppice wait {name}` returns when it runs")
        }
        (_, S::Unknown) => match &instance.state_error {
            Some(error) => format!("its state is unknown ({error}); `coppice rm` removes it"),
            None => "its state is unknown; `coppice rm` removes it".to_owned(),
        },
        (_, _) => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_forks_is_cut() {
        let forks = ["a", "b", "c", "d", "e", "f", "g"];
        assert!(locked_hint("base", &forks).contains("a, b, c, d, e and 2 more;"));
        assert!(locked_hint("base", &forks[..2]).contains("shared by a, b;"));
    }
}
