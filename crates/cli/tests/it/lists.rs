//! Commands that only look: tables, trees and JSON.

use api::instances::{Instance, InstanceState};

use crate::cli::{coppice_at, transcript, write_down};
use crate::fixtures::{compressed, fork_of, id, instance, recent, stats, template};
use crate::server::Script;

/// A template with two forks, one of them a template with a fork of its own,
/// and two strangers.
fn family() -> Vec<Instance> {
    vec![
        recent(compressed(template("base", 2))),
        recent(fork_of("base", "web-1", InstanceState::Running)),
        recent(Instance {
            fork_of_template: Some(id("base")),
            ..template("web-2", 1)
        }),
        recent(fork_of("web-2", "leaf", InstanceState::Running)),
        recent(instance("alone", InstanceState::Running)),
        recent(instance("asleep", InstanceState::Stopped)),
    ]
}

fn script() -> Script {
    let family = family();
    let saved = |name: &str| match name {
        "base" => Some(100),
        "web-2" => Some(0),
        _ => None,
    };
    let script = Script::default().ok("GET /instances", &family);
    family.iter().fold(script, |script, instance| {
        let path = format!("GET /instances/{}", instance.id);
        let stats = stats(instance, 2, saved(&instance.name));
        script
            .ok(&format!("{path}/stats"), &stats)
            .ok(&format!("GET /instances/{}", instance.name), instance)
    })
}

/// Without what was asked, since some of it is asked at once.
fn check(name: &str, args: &[&str]) {
    let fake = script().serve();
    let output = coppice_at(&fake, args).output().expect("it starts");
    insta::assert_snapshot!(name, write_down(args, &output));
}

#[test]
fn ps_shows_what_runs() {
    check("ps", &["ps"]);
    check("ps-all", &["ps", "-a"]);
    check("ps-quiet", &["ps", "-aq"]);
}

#[test]
fn ps_shows_whose_pages_are_used() {
    check("ps-memory", &["ps", "-a", "--memory"]);
}

#[test]
fn ps_asks_the_server_to_filter() {
    let forks = vec![recent(fork_of("base", "web-1", InstanceState::Stopped))];
    let fake = Script::default()
        .ok("GET /instances/base", &template("base", 1))
        .ok(
            &format!("GET /instances?fork_of={}&tags%5Bapp%5D=web", id("base")),
            &forks,
        )
        .serve();
    insta::assert_snapshot!(
        "ps-filter",
        transcript(
            &fake,
            &["ps", "-a", "--fork-of", "base", "--tag", "app=web"]
        )
    );
}

#[test]
fn an_empty_list_is_a_header_or_an_empty_array() {
    let none: Vec<Instance> = Vec::new();
    let script = || Script::default().ok("GET /instances", &none).serve();
    insta::assert_snapshot!("ps-empty", transcript(&script(), &["ps"]));
    insta::assert_snapshot!("ps-empty-json", transcript(&script(), &["ps", "--json"]));
}

#[test]
fn ps_json_is_what_came_over_the_wire() {
    let fake = Script::default()
        .ok("GET /instances", &vec![template("base", 3)])
        .serve();
    insta::assert_snapshot!("ps-json", transcript(&fake, &["ps", "-a", "--json"]));
}

#[test]
fn the_tree_shows_forks_below_templates() {
    check("tree", &["tree"]);
    check("tree-of-one", &["tree", "web-2"]);
}

#[test]
fn inspect_hides_the_environment_from_onlookers() {
    let script = || {
        let exited = Instance {
            exit_code: Some(3),
            exit_message: Some("exited".to_owned()),
            ..compressed(template("base", 2))
        };
        Script::default()
            .ok("GET /instances/base", &exited)
            .ok(
                "GET /instances/leaf",
                &fork_of("base", "leaf", InstanceState::Running),
            )
            .serve()
    };
    insta::assert_snapshot!(
        "inspect",
        transcript(&script(), &["inspect", "base", "leaf"])
    );
    insta::assert_snapshot!(
        "inspect-env",
        transcript(&script(), &["inspect", "leaf", "--show-env"])
    );
}

#[test]
fn stats_are_a_table_of_what_runs() {
    check("stats", &["stats"]);
}
