//! Random operations, restarts of the daemon among them, against a reference that knows
//! nothing but the specification.

use std::collections::BTreeMap;

use model::State;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::world::{OVERLAYS, RAW, World};

#[derive(Debug, Clone)]
enum Deed {
    Create,
    Start(usize),
    Stop(usize),
    Standby(usize),
    Restore(usize),
    Promote(usize),
    Demote(usize),
    Delete(usize),
    Fork(usize, Ask),
    /// Adds one to the number in memory.
    Count(usize),
    RestartDaemon,
}

#[derive(Debug, Clone, Copy)]
struct Ask {
    share: Option<bool>,
    from_running: bool,
    target: Option<State>,
    count: Option<u32>,
}

fn ask() -> impl Strategy<Value = Ask> {
    let target = prop_oneof![
        Just(None),
        Just(Some(State::Stopped)),
        Just(Some(State::Standby)),
        Just(Some(State::Running)),
    ];
    let count = prop_oneof![3 => Just(None), 1 => (1..3_u32).prop_map(Some)];
    let share = prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    (share, any::<bool>(), target, count).prop_map(|(share, from_running, target, count)| Ask {
        share,
        from_running,
        target,
        count,
    })
}

fn deed() -> impl Strategy<Value = Deed> {
    let which = 0..6_usize;
    prop_oneof![
        2 => Just(Deed::Create),
        2 => which.clone().prop_map(Deed::Start),
        1 => which.clone().prop_map(Deed::Stop),
        4 => which.clone().prop_map(Deed::Standby),
        2 => which.clone().prop_map(Deed::Restore),
        3 => which.clone().prop_map(Deed::Promote),
        2 => which.clone().prop_map(Deed::Demote),
        2 => which.clone().prop_map(Deed::Delete),
        5 => (which.clone(), ask()).prop_map(|(which, ask)| Deed::Fork(which, ask)),
        3 => which.prop_map(Deed::Count),
        1 => Just(Deed::RestartDaemon),
    ]
}

/// An instance as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    state: State,
    parent: Option<String>,
    /// The number in its memory, while it has any.
    number: u64,
}

#[derive(Default)]
struct Reference {
    instances: BTreeMap<String, Known>,
    /// Ids in the order of their making.
    order: Vec<String>,
    made: usize,
}

impl Reference {
    fn pick(&self, which: usize) -> Option<String> {
        (!self.order.is_empty()).then(|| self.order[which % self.order.len()].clone())
    }

    fn forks_of(&self, id: &str) -> u64 {
        let forks = self.instances.values();
        forks
            .filter(|known| known.parent.as_deref() == Some(id))
            .count() as u64
    }

    fn add(&mut self, id: &str, known: Known) {
        self.order.push(id.to_owned());
        self.instances.insert(id.to_owned(), known);
    }

    fn remove(&mut self, id: &str) {
        self.order.retain(|other| other != id);
        self.instances.remove(id);
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("i{}", self.made)
    }
}

struct Run {
    world: World,
    truth: Reference,
}

impl Run {
    async fn carry_out(&mut self, deed: &Deed) {
        match deed {
            Deed::Create => {
                let name = self.truth.name();
                let vmm = [OVERLAYS, RAW][self.truth.made % 2];
                let id = self.world.running_on(&name, vmm).await;
                let known = Known {
                    state: State::Running,
                    parent: None,
                    number: 0,
                };
                self.truth.add(&id, known);
            }
            Deed::RestartDaemon => {
                self.world.restart().await;
                self.world.settle().await;
            }
            Deed::Start(which) => self.act(*which, "start").await,
            Deed::Stop(which) => self.act(*which, "stop").await,
            Deed::Standby(which) => self.act(*which, "standby").await,
            Deed::Restore(which) => self.act(*which, "restore").await,
            Deed::Promote(which) => self.act(*which, "promote-template").await,
            Deed::Demote(which) => self.act(*which, "demote-template").await,
            Deed::Delete(which) => self.delete(*which).await,
            Deed::Fork(which, ask) => self.fork(*which, *ask).await,
            Deed::Count(which) => self.count(*which).await,
        }
    }

    async fn act(&mut self, which: usize, verb: &str) {
        let Some(id) = self.truth.pick(which) else {
            return;
        };
        let locked = self.truth.forks_of(&id) > 0;
        let known = self.truth.instances.get_mut(&id).unwrap();
        let next = match (verb, known.state) {
            ("start", State::Stopped | State::Running) => Some(State::Running),
            ("stop", State::Running | State::Stopped) => Some(State::Stopped),
            ("standby", State::Running | State::Standby) => Some(State::Standby),
            ("restore", State::Standby | State::Running) => Some(State::Running),
            ("promote-template", State::Standby) => Some(State::Template),
            ("demote-template", State::Template) if !locked => Some(State::Standby),
            _ => None,
        };
        let path = format!("/instances/{id}/{verb}");
        let answer = self.world.call("POST", &path, "").await;
        match next {
            None => drop(answer.refused(409, "invalid_state")),
            Some(next) => {
                answer.ok();
                if next == State::Stopped {
                    known.number = 0;
                }
                known.state = next;
                self.world.reach(&id, next).await;
            }
        }
    }

    async fn delete(&mut self, which: usize) {
        let Some(id) = self.truth.pick(which) else {
            return;
        };
        let answer = self
            .world
            .call("DELETE", &format!("/instances/{id}"), "")
            .await;
        if self.truth.forks_of(&id) > 0 {
            answer.refused(409, "invalid_state");
        } else {
            assert_eq!(answer.status, 204, "{answer:?}");
            self.truth.remove(&id);
        }
    }

    async fn count(&mut self, which: usize) {
        let Some(id) = self.truth.pick(which) else {
            return;
        };
        let known = self.truth.instances.get_mut(&id).unwrap();
        if known.state == State::Running {
            known.number += 1;
            let printed = self.world.exec(&id, &["counter"]).await;
            assert_eq!(printed, known.number.to_string());
        }
    }

    async fn fork(&mut self, which: usize, ask: Ask) {
        let Some(id) = self.truth.pick(which) else {
            return;
        };
        let source = self.truth.instances[&id].clone();
        let name = self.truth.name();
        let mut body = json!({ "name": name, "from_running": ask.from_running });
        if let Some(share) = ask.share {
            body["share_memory"] = json!(share);
        }
        if let Some(target) = ask.target {
            body["target_state"] = json!(target.as_str());
        }
        if let Some(count) = ask.count {
            body["count"] = json!(count);
        }
        let answer = self
            .world
            .post(&format!("/instances/{id}/fork"), body)
            .await;
        let made = match expected(&source, ask) {
            Err((status, code)) => return drop(answer.refused(status, code)),
            Ok(made) => made,
        };
        let body = answer.ok();
        let forks: Vec<Value> = match ask.count {
            None => vec![body],
            Some(_) => {
                let entries = body["forks"].as_array().unwrap().iter();
                entries.map(|entry| entry["instance"].clone()).collect()
            }
        };
        assert_eq!(forks.len(), ask.count.unwrap_or(1) as usize);
        if made.shares {
            self.truth.instances.get_mut(&id).unwrap().state = State::Template;
        }
        for fork in forks {
            let fork_id = fork["id"].as_str().unwrap();
            let known = Known {
                state: made.state,
                parent: made.shares.then(|| id.clone()),
                number: if made.remembers { source.number } else { 0 },
            };
            self.truth.add(fork_id, known);
            self.world.reach(fork_id, made.state).await;
        }
    }

    /// Everything that is shown is as it must be.
    async fn compare(&self) {
        let listed = self.world.get("/instances").await.ok();
        let listed = listed.as_array().unwrap();
        assert_eq!(listed.len(), self.truth.order.len());
        for (shown, id) in listed.iter().zip(&self.truth.order) {
            let known = &self.truth.instances[id];
            let forks = self.truth.forks_of(id);
            let seen = [
                &shown["id"],
                &shown["state"],
                &shown["fork_of_template"],
                &shown["fork_count"],
                &shown["mem_locked"],
            ];
            let must = [
                &json!(id),
                &json!(known.state.as_str()),
                &json!(known.parent),
                &json!(forks),
                &json!(forks > 0),
            ];
            assert_eq!(seen, must);
        }
    }
}

struct Made {
    state: State,
    shares: bool,
    /// It goes on with the memory of its source.
    remembers: bool,
}

/// What the specification says to a fork, §2, §3 and decision 0002.
fn expected(source: &Known, ask: Ask) -> Result<Made, (u16, &'static str)> {
    if ask.share == Some(true) && ask.from_running {
        return Err((400, "invalid_request"));
    }
    let shares = match source.state {
        State::Template => ask.share.unwrap_or(true),
        State::Standby => ask.share.unwrap_or(false),
        _ if ask.share == Some(true) => return Err((409, "invalid_state")),
        State::Running if !ask.from_running => return Err((409, "invalid_state")),
        _ => false,
    };
    let fitting = match source.state {
        State::Stopped => State::Stopped,
        State::Standby if !shares => State::Standby,
        _ => State::Running,
    };
    let state = ask.target.unwrap_or(fitting);
    if source.state == State::Stopped && state == State::Standby {
        return Err((400, "invalid_request"));
    }
    Ok(Made {
        state,
        shares,
        remembers: source.state != State::Stopped && state != State::Stopped,
    })
}

async fn live(deeds: Vec<Deed>) {
    let mut run = Run {
        world: World::new().await,
        truth: Reference::default(),
    };
    for deed in &deeds {
        run.carry_out(deed).await;
        run.compare().await;
    }
    run.world.picture().await;
    run.world.delete_everything().await;
}

#[test]
fn the_daemon_does_what_the_specification_says() {
    let config = Config {
        cases: 24,
        failure_persistence: None,
        // Finding the shortest of many runs takes longer than reading a long one.
        max_shrink_iters: 64,
        ..Config::default()
    };
    let deeds = proptest::collection::vec(deed(), 1..30);
    TestRunner::new(config)
        .run(&deeds, |deeds| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(live(deeds));
            Ok(())
        })
        .unwrap();
}
