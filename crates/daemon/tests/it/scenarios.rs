//! Every operation once, each on a host prepared for it: what the tests of faults and
//! crashes go through step by step.

use serde_json::{Value, json};

use crate::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Create,
    Start,
    Stop,
    Standby,
    StandbyCompressed,
    StandbyOfAFork,
    Restore,
    Promote,
    Demote,
    Patch,
    DeleteRunning,
    DeleteTemplate,
    ForkTemplate,
    ForkTemplateToStandby,
    ForkTemplateToStopped,
    ForkPromoting,
    ForkCopied,
    ForkCopiedToStandby,
    ForkStopped,
    ForkStoppedToRunning,
    ForkRunning,
}

/// A host on which the operation can be asked for.
pub(crate) struct Stage {
    /// The instance that it is asked of; for a create, one that is only there.
    pub(crate) subject: String,
    /// Its state before, and after the operation has succeeded; none = gone.
    pub(crate) before: &'static str,
    pub(crate) after: Option<&'static str>,
    /// Pid of the subject's machine before.
    pub(crate) pid: Option<i32>,
    /// A running instance that has nothing to do with it, and its pid.
    pub(crate) bystander: (String, i32),
    /// Method, path and body.
    pub(crate) request: (&'static str, String, String),
    /// The names that new instances get.
    pub(crate) names: Vec<&'static str>,
    /// The memory of the subject outlives the operation.
    pub(crate) remembers: bool,
}

impl Scenario {
    pub(crate) async fn stage(self, world: &World) -> Stage {
        let bystander = world.running("bystander").await;
        let bystander_pid = world.machines.pid(&bystander).await.unwrap();
        let before = self.state_before();
        let subject = self.prepare(world, before).await;
        let request = self.request(&subject);
        Stage {
            before,
            after: self.state_after(),
            pid: world.machines.pid(&subject).await,
            bystander: (bystander, bystander_pid),
            request,
            names: self.names(),
            remembers: !matches!(
                self,
                Self::Start | Self::Stop | Self::ForkStopped | Self::ForkStoppedToRunning
            ),
            subject,
        }
    }

    /// The subject, with one count in its memory.
    async fn prepare(self, world: &World, state: &str) -> String {
        let id = if self == Self::StandbyOfAFork {
            let template = world.template("template").await;
            world.fork(&template, json!({ "name": "subject" })).await
        } else {
            world.running("subject").await
        };
        assert_eq!(world.exec(&id, &["counter"]).await, "1");
        match state {
            "Running" => {}
            "Stopped" => drop(world.act(&id, "stop").await),
            _ => drop(world.act(&id, "standby").await),
        }
        if state == "Template" {
            world.act(&id, "promote-template").await;
        }
        id
    }

    fn state_before(self) -> &'static str {
        match self {
            Self::Create
            | Self::Stop
            | Self::Standby
            | Self::StandbyCompressed
            | Self::StandbyOfAFork
            | Self::Patch
            | Self::DeleteRunning
            | Self::ForkRunning => "Running",
            Self::Start | Self::ForkStopped | Self::ForkStoppedToRunning => "Stopped",
            Self::Restore
            | Self::Promote
            | Self::ForkPromoting
            | Self::ForkCopied
            | Self::ForkCopiedToStandby => "Standby",
            Self::Demote
            | Self::DeleteTemplate
            | Self::ForkTemplate
            | Self::ForkTemplateToStandby
            | Self::ForkTemplateToStopped => "Template",
        }
    }

    fn state_after(self) -> Option<&'static str> {
        match self {
            Self::Start | Self::Restore => Some("Running"),
            Self::Stop => Some("Stopped"),
            Self::Standby | Self::StandbyCompressed | Self::StandbyOfAFork | Self::Demote => {
                Some("Standby")
            }
            Self::Promote | Self::ForkPromoting => Some("Template"),
            Self::DeleteRunning | Self::DeleteTemplate => None,
            other => Some(other.state_before()),
        }
    }

    fn names(self) -> Vec<&'static str> {
        match self {
            Self::Create => vec!["new"],
            Self::ForkTemplate | Self::ForkPromoting => vec!["f-1", "f-2"],
            other if other.fork_body().is_some() => vec!["f"],
            _ => Vec::new(),
        }
    }

    fn fork_body(self) -> Option<Value> {
        Some(match self {
            Self::ForkTemplate => json!({ "name": "f", "count": 2 }),
            Self::ForkTemplateToStandby => json!({ "name": "f", "target_state": "Standby" }),
            Self::ForkTemplateToStopped => json!({ "name": "f", "target_state": "Stopped" }),
            Self::ForkPromoting => json!({ "name": "f", "count": 2, "share_memory": true }),
            Self::ForkCopied => json!({ "name": "f", "target_state": "Running" }),
            Self::ForkCopiedToStandby | Self::ForkStopped => json!({ "name": "f" }),
            Self::ForkStoppedToRunning => json!({ "name": "f", "target_state": "Running" }),
            Self::ForkRunning => json!({ "name": "f", "from_running": true }),
            _ => return None,
        })
    }

    fn request(self, id: &str) -> (&'static str, String, String) {
        let instance = format!("/instances/{id}");
        if let Some(body) = self.fork_body() {
            return ("POST", format!("{instance}/fork"), body.to_string());
        }
        let post = |verb: &str| ("POST", format!("{instance}/{verb}"), String::new());
        match self {
            Self::Create => (
                "POST",
                "/instances".to_owned(),
                World::plain("new").to_string(),
            ),
            Self::Start => post("start"),
            Self::Stop => post("stop"),
            Self::Standby | Self::StandbyOfAFork => post("standby"),
            Self::StandbyCompressed => {
                let body = json!({ "compression": { "enabled": true } });
                ("POST", format!("{instance}/standby"), body.to_string())
            }
            Self::Restore => post("restore"),
            Self::Promote => post("promote-template"),
            Self::Demote => post("demote-template"),
            Self::Patch => (
                "PATCH",
                instance,
                json!({ "tags": { "a": "b" } }).to_string(),
            ),
            _ => ("DELETE", instance, String::new()),
        }
    }
}

impl Stage {
    /// Asks for the operation; none if the daemon was stopped meanwhile.
    pub(crate) async fn ask(&self, world: &World) -> Option<crate::world::Answer> {
        let (method, path, body) = &self.request;
        world.try_call(method, path, body).await
    }

    /// The subject is in one of the two states, and what has nothing to do with the
    /// operation is untouched.
    pub(crate) async fn check(&self, world: &World) -> Option<String> {
        let (bystander, pid) = &self.bystander;
        assert_eq!(
            world.machines.pid(bystander).await,
            Some(*pid),
            "the bystander's machine"
        );
        let state = match world.get(&format!("/instances/{}", self.subject)).await {
            answer if answer.status == 404 => None,
            answer => Some(answer.ok()["state"].as_str().unwrap().to_owned()),
        };
        let expected = [Some(self.before), self.after];
        assert!(
            expected.contains(&state.as_deref()),
            "{state:?}, not one of {expected:?}"
        );
        let promoted = self.before == "Standby" && state.as_deref() == Some("Template");
        if promoted && !self.names.is_empty() {
            let shown = world.show(&self.subject).await;
            assert_ne!(shown["fork_count"], 0, "promoted for forks that never were");
        }
        if state.as_deref() == Some("Running") && self.before == "Running" {
            assert_eq!(
                world.machines.pid(&self.subject).await,
                self.pid,
                "the subject's machine"
            );
        }
        state
    }

    /// Nothing of what the subject had in memory is lost. It is awake afterwards, and
    /// its forks are gone.
    pub(crate) async fn check_memory(&self, world: &World, state: Option<&str>) {
        let Some(state) = state else { return };
        if state == "Template" {
            for record in world.all_records() {
                if record
                    .parent
                    .as_ref()
                    .is_some_and(|id| id.as_str() == self.subject)
                {
                    world.delete(record.id.as_str()).await;
                }
            }
            world.act(&self.subject, "demote-template").await;
        }
        if matches!(state, "Standby" | "Template") {
            world.act(&self.subject, "restore").await;
        }
        if self.remembers {
            assert_eq!(world.exec(&self.subject, &["counter"]).await, "2");
        }
    }

    /// No name is poisoned: it is either used or free.
    pub(crate) async fn check_names(&self, world: &World) {
        for name in &self.names {
            let taken = world
                .all_records()
                .iter()
                .any(|record| record.name.as_str() == *name);
            if !taken {
                world.running(name).await;
            }
        }
    }
}

/// One test for each scenario.
macro_rules! scenarios {
    ($run:ident: $($name:ident = $scenario:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $name() {
                $run($crate::scenarios::Scenario::$scenario).await;
            }
        )*
    };
    ($run:ident) => {
        $crate::scenarios::scenarios! { $run:
            create = Create,
            start = Start,
            stop = Stop,
            standby = Standby,
            standby_compressed = StandbyCompressed,
            standby_of_a_fork = StandbyOfAFork,
            restore = Restore,
            promote = Promote,
            demote = Demote,
            patch = Patch,
            delete_running = DeleteRunning,
            delete_template = DeleteTemplate,
            fork_template = ForkTemplate,
            fork_template_to_standby = ForkTemplateToStandby,
            fork_template_to_stopped = ForkTemplateToStopped,
            fork_promoting = ForkPromoting,
            fork_copied = ForkCopied,
            fork_copied_to_standby = ForkCopiedToStandby,
            fork_stopped = ForkStopped,
            fork_stopped_to_running = ForkStoppedToRunning,
            fork_running = ForkRunning,
        }
    };
}
pub(crate) use scenarios;
