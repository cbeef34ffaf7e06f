//! Commands that change instances.

use api::error::ErrorDetail;
use api::instances::{ForkManyResponse, ForkOutcome, Instance, InstanceState, WaitResponse};

use crate::cli::{coppice_at, transcript};
use crate::fixtures::{fork_of, id, instance, template};
use crate::server::Script;

fn seen(state: InstanceState, timed_out: bool) -> WaitResponse {
    WaitResponse {
        state,
        state_error: None,
        timed_out,
    }
}

/// What `run` meets: the answer to create, to wait, and the instance then.
fn check_run(name: &str, wait: &WaitResponse, then: &Instance) {
    let fake = Script::default()
        .ok(
            "POST /instances",
            &instance("web", InstanceState::Initializing),
        )
        .ok(
            &format!("GET /instances/{}/wait?state=Running&timeout=5m", id("web")),
            wait,
        )
        .ok(&format!("GET /instances/{}", id("web")), then)
        .serve();
    insta::assert_snapshot!(name, transcript(&fake, &["run", "demo", "--name", "web"]));
}

#[test]
fn run_waits_until_it_runs() {
    use InstanceState::{Initializing, Running, Stopped};
    check_run("run", &seen(Running, false), &instance("web", Running));
    let ended = |code| Instance {
        exit_code: Some(code),
        ..instance("web", Stopped)
    };
    check_run("run-ended", &seen(Stopped, false), &ended(0));
    check_run("run-failed", &seen(Stopped, false), &ended(7));
    check_run(
        "run-slow",
        &seen(Initializing, true),
        &instance("web", Initializing),
    );
}

#[test]
fn create_sends_what_was_given_and_nothing_else() {
    let script = || {
        Script::default()
            .ok(
                "POST /instances",
                &instance("web", InstanceState::Initializing),
            )
            .serve()
    };
    let all = [
        "create",
        "--name",
        "web",
        "-e",
        "A=1",
        "-e",
        "B=x=y",
        "-e",
        "GONE",
        "--memory",
        "512MB",
        "--cpus",
        "4",
        "--overlay-size",
        "2GB",
        "--tag",
        "app=web",
        "--ttl",
        "1h",
        "--snapshot-compression-level",
        "3",
        "--entrypoint",
        "",
        "demo",
        "--",
        "sleep",
        "--help",
    ];
    insta::assert_snapshot!("create-all", transcript(&script(), &all));
    insta::assert_snapshot!(
        "create-least",
        transcript(&script(), &["create", "demo", "--name", "w"])
    );
}

#[test]
fn a_name_is_made_up_from_the_image() {
    let fake = Script::default()
        .ok(
            "POST /instances",
            &instance("web", InstanceState::Initializing),
        )
        .serve();
    let output = coppice_at(&fake, &["create", "docker.io/library/demo:latest"])
        .output()
        .expect("it starts");
    assert!(output.status.success());
    assert!(
        fake.asked().contains(r#"{"name":"demo-"#),
        "{}",
        fake.asked()
    );
}

#[test]
fn standby_asks_for_compression_as_it_was_given() {
    for (name, flags) in [
        ("standby-compressed", &["--compression-enabled"][..]),
        ("standby-plain", &["--compression-enabled=false"]),
        (
            "standby-level",
            &[
                "--compression-level",
                "19",
                "--compression-algorithm",
                "zstd",
            ],
        ),
    ] {
        let asleep = instance("web", InstanceState::Standby);
        let fake = Script::default()
            .ok("POST /instances/web/standby", &asleep)
            .serve();
        let args = [&["standby", "web"], flags].concat();
        insta::assert_snapshot!(name, transcript(&fake, &args));
    }
}

#[test]
fn moves_are_made_one_by_one() {
    for (command, path, state) in [
        ("stop", "stop", InstanceState::Stopped),
        ("standby", "standby", InstanceState::Standby),
        ("restore", "restore", InstanceState::Running),
        ("promote", "promote-template", InstanceState::Template),
        ("demote", "demote-template", InstanceState::Standby),
        ("start", "start", InstanceState::Running),
    ] {
        let fake = Script::default()
            .ok(&format!("POST /instances/a/{path}"), &instance("a", state))
            .ok(&format!("POST /instances/b/{path}"), &instance("b", state))
            .serve();
        insta::assert_snapshot!(
            format!("move-{command}"),
            transcript(&fake, &[command, "a", "b"])
        );
    }
}

#[test]
fn start_may_replace_the_program() {
    let fake = Script::default()
        .ok(
            "POST /instances/a/start",
            &instance("a", InstanceState::Running),
        )
        .serve();
    insta::assert_snapshot!(
        "start-cmd",
        transcript(
            &fake,
            &["start", "a", "--entrypoint", "/bin/sh", "--", "-c", "x y"]
        )
    );
}

#[test]
fn one_fork_is_one_instance() {
    let fake = Script::default()
        .ok(
            "POST /instances/base/fork",
            &fork_of("base", "web", InstanceState::Running),
        )
        .serve();
    insta::assert_snapshot!(
        "fork",
        transcript(
            &fake,
            &[
                "fork",
                "base",
                "web",
                "--share-memory",
                "--target-state",
                "Standby",
                "--post-fork",
                "systemctl reload app",
                "--post-fork-timeout",
                "5s"
            ]
        )
    );
}

#[test]
fn update_sends_what_is_to_change() {
    let fake = Script::default()
        .ok(
            "PATCH /instances/base",
            &instance("base", InstanceState::Stopped),
        )
        .ok("PATCH /instances/web", &template("web", 2))
        .serve();
    let args = [
        "update", "base", "web", "-e", "A=1", "-l", "team=a", "--ttl", "0s",
    ];
    insta::assert_snapshot!("update", transcript(&fake, &args));
    let fake = Script::default()
        .ok("PATCH /instances/web", &template("web", 2))
        .serve();
    let args = ["update", "web", "--no-tags"];
    insta::assert_snapshot!("update-no-tags", transcript(&fake, &args));
    let gone = Script::default().serve();
    let args = ["update", "gone", "--ttl", "1h"];
    insta::assert_snapshot!("update-gone", transcript(&gone, &args));
}

#[test]
fn the_name_of_a_fork_is_made_up_from_its_source() {
    let fake = Script::default()
        .ok("GET /instances/basex", &template("base", 0))
        .ok("GET /instances/other", &template("other", 0))
        .ok(
            "POST /instances/basex/fork",
            &fork_of("base", "base-abcd", InstanceState::Running),
        )
        .serve();
    let args = [
        "fork",
        "basex",
        "--from-running",
        "--share-memory=false",
        "--template",
        "other",
    ];
    let output = coppice_at(&fake, &args).output().expect("it starts");
    assert!(output.status.success());
    let asked = fake.asked();
    let (_, body) = asked.split_once("/fork ").expect("it asked for a fork");
    let body: api::instances::ForkRequest = serde_json::from_str(body).expect("a request");
    assert!(body.name.starts_with("base-"), "{}", body.name);
    assert_eq!(body.template_id, Some(id("other")));
    assert_eq!(
        (body.from_running, body.share_memory, body.count),
        (Some(true), Some(false), None)
    );
}

#[test]
fn many_forks_are_told_one_by_one() {
    let script = || {
        let forks = vec![
            ForkOutcome::made(fork_of("base", "web-1", InstanceState::Running)),
            ForkOutcome::failed(
                "web-2",
                ErrorDetail {
                    code: "name_conflict".to_owned(),
                    message: "the name web-2 is taken".to_owned(),
                },
            ),
            ForkOutcome::made(fork_of("base", "web-3", InstanceState::Running)),
        ];
        Script::default()
            .ok("POST /instances/base/fork", &ForkManyResponse { forks })
            .serve()
    };
    let args = ["fork", "base", "--name", "web", "--count", "3"];
    insta::assert_snapshot!("fork-many", transcript(&script(), &args));
    let json = coppice_at(&script(), &[&args[..], &["--json"]].concat())
        .output()
        .expect("it starts");
    assert_eq!(json.status.code(), Some(1));
    let told: ForkManyResponse = serde_json::from_slice(&json.stdout).expect("the answer");
    assert_eq!(told.forks.len(), 3);
}

#[test]
fn rm_goes_on_after_a_refusal_and_comes_back_to_it() {
    let fake = Script::default()
        .error(
            "DELETE /instances/base",
            409,
            "invalid_state",
            "base has 1 live fork",
        )
        .empty("DELETE /instances/web-1")
        .ok("GET /instances/base", &template("base", 1))
        .ok(
            &format!("GET /instances?fork_of={}", id("base")),
            &vec![fork_of("base", "web-2", InstanceState::Running)],
        )
        .serve();
    insta::assert_snapshot!(
        "rm-locked",
        transcript(&fake, &["rm", "base", "web-1", "gone"])
    );
}

#[test]
fn rm_force_does_not_mind_what_is_gone() {
    let script = || {
        Script::default()
            .empty("DELETE /instances/web-1?graceful_shutdown=false")
            .serve()
    };
    insta::assert_snapshot!(
        "rm-force",
        transcript(&script(), &["rm", "-f", "web-1", "gone"])
    );
    insta::assert_snapshot!(
        "rm-force-json",
        transcript(&script(), &["rm", "-f", "web-1", "gone", "--json"])
    );
}

#[test]
fn wait_tells_whether_the_state_was_reached() {
    let check = |name: &str, answer: &WaitResponse| {
        let fake = Script::default()
            .ok("GET /instances/web/wait?state=Standby&timeout=2s", answer)
            .serve();
        let args = ["wait", "web", "--state", "standby", "--timeout", "2s"];
        insta::assert_snapshot!(name, transcript(&fake, &args));
    };
    check("wait", &seen(InstanceState::Standby, false));
    check("wait-timeout", &seen(InstanceState::Running, true));
    check("wait-never", &seen(InstanceState::Stopped, false));
}
