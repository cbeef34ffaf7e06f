//! Refusals: what the user reads, and the exit code.

use api::instances::{Instance, InstanceState};

use crate::cli::{coppice, coppice_at, transcript, write_down};
use crate::fixtures::{fork_of, id, instance, template};
use crate::server::Script;

#[test]
fn a_locked_template_names_its_forks() {
    let forks: Vec<Instance> = (1..=7)
        .map(|n| fork_of("base", &format!("web-{n}"), InstanceState::Running))
        .collect();
    for (command, request) in [
        ("restore", "POST /instances/base/restore"),
        ("demote", "POST /instances/base/demote-template"),
        ("rm", "DELETE /instances/base"),
    ] {
        let fake = Script::default()
            .error(
                request,
                409,
                "invalid_state",
                "7 live forks share the memory of base",
            )
            .ok("GET /instances/base", &template("base", 7))
            .ok(&format!("GET /instances?fork_of={}", id("base")), &forks)
            .serve();
        insta::assert_snapshot!(
            format!("locked-{command}"),
            transcript(&fake, &[command, "base"])
        );
    }
}

#[test]
fn a_refusal_says_what_leads_on() {
    use InstanceState as S;
    let mut text = String::new();
    for (command, path, state) in [
        ("restore", "restore", S::Template),
        ("restore", "restore", S::Stopped),
        ("start", "start", S::Standby),
        ("promote", "promote-template", S::Running),
        ("standby", "standby", S::Initializing),
        ("fork", "fork", S::Running),
        ("stop", "stop", S::Unknown),
    ] {
        let subject = Instance {
            state_error: (state == S::Unknown).then(|| "no memory image".to_owned()),
            ..instance("web", state)
        };
        let message = format!("cannot {command} an instance that is {state}");
        let fake = Script::default()
            .error(
                &format!("POST /instances/web/{path}"),
                409,
                "invalid_state",
                &message,
            )
            .ok("GET /instances/web", &subject)
            .serve();
        let args = match command {
            "fork" => vec!["fork", "web", "web-2"],
            command => vec![command, "web"],
        };
        let output = coppice_at(&fake, &args).output().expect("it starts");
        text.push_str(&write_down(&args, &output));
    }
    insta::assert_snapshot!("ways-out", text);
}

#[test]
fn the_server_may_be_absent_or_unwilling() {
    let args = ["--host", "http://127.0.0.1:9", "ps"];
    let output = coppice(&args).output().expect("it starts");
    insta::assert_snapshot!("no-server", write_down(&args, &output));

    let refuse = |status, code: &str, message: &str| {
        let fake = Script::default()
            .error("GET /instances", status, code, message)
            .serve();
        transcript(&fake, &["ps"])
    };
    insta::assert_snapshot!(
        "unauthorized",
        refuse(401, "Unauthorized", "no token was given")
    );
    insta::assert_snapshot!(
        "forbidden",
        refuse(403, "Forbidden", "missing required scope: instance:read")
    );
    insta::assert_snapshot!(
        "internal",
        refuse(500, "internal_error", "record abc is unreadable")
    );
}

#[test]
fn lost_things_have_hints_of_their_kind() {
    let fake = || Script::default().serve();
    insta::assert_snapshot!("no-instance", transcript(&fake(), &["inspect", "ghost"]));
    insta::assert_snapshot!(
        "no-image",
        transcript(&fake(), &["create", "ghost", "--name", "a"])
    );
    let fake = Script::default()
        .error(
            "GET /instances/w",
            409,
            "ambiguous",
            "w fits web-1 and web-2",
        )
        .serve();
    insta::assert_snapshot!("ambiguous", transcript(&fake, &["inspect", "w"]));
}

#[test]
fn answers_that_make_no_sense_are_errors() {
    let fake = Script::default()
        .raw("GET /instances", 200, &[], "<html>".to_owned())
        .serve();
    insta::assert_snapshot!("nonsense", transcript(&fake, &["ps"]));
    let fake = Script::default()
        .raw("GET /instances", 418, &[], "<html>".to_owned())
        .serve();
    insta::assert_snapshot!("nonsense-error", transcript(&fake, &["ps"]));
}

#[test]
fn reads_are_repeated_when_the_server_says_so() {
    let headers = [("x-should-retry", "true"), ("retry-after-ms", "1")];
    let fake = Script::default()
        .raw("GET /instances", 503, &headers, String::new())
        .serve();
    insta::assert_snapshot!("retried", transcript(&fake, &["ps"]));
}

#[test]
fn the_token_comes_from_a_file_or_the_environment() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("token");
    std::fs::write(&file, "from-file\n").expect("written");
    let none: Vec<Instance> = Vec::new();
    let script = || Script::default().ok("GET /instances", &none);

    let fake = script().serve();
    let mut command = coppice_at(&fake, &["ps", "--token-file"]);
    command.arg(&file).env("COPPICE_TOKEN", "from-variable");
    assert!(command.output().expect("it starts").status.success());
    assert_eq!(fake.asked(), "GET /instances [Bearer from-file]");

    let socket = scratch.path().join("s");
    let fake = script().serve_unix(&socket);
    let mut command = coppice_at(&fake, &["ps"]);
    command.env("HYPEMAN_API_KEY", "public");
    assert!(command.output().expect("it starts").status.success());
    assert_eq!(fake.asked(), "GET /instances [Bearer public]");
}

#[test]
fn the_host_must_be_an_address() {
    let args = ["--host", "localhost:4973", "ps"];
    let output = coppice(&args).output().expect("it starts");
    insta::assert_snapshot!("bad-host", write_down(&args, &output));
}

#[test]
fn daemon_commands_become_the_daemon() {
    let scratch = tempfile::tempdir().expect("a directory");
    let program = scratch.path().join("coppice");
    std::fs::copy(env!("CARGO_BIN_EXE_coppice"), &program).expect("copied");
    let run = |args: &[&str]| {
        let output = std::process::Command::new(&program)
            .args(args)
            .env_clear()
            .output()
            .expect("it starts");
        write_down(args, &output)
    };
    insta::assert_snapshot!("doctor-absent", run(&["doctor"]));
    let daemon = scratch.path().join("coppiced");
    std::fs::write(&daemon, "#!/bin/sh\necho \"$@\"\nexit 5\n").expect("written");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&daemon, executable).expect("executable");
    insta::assert_snapshot!(
        "token",
        run(&["--json", "token", "--help", "--scope", "a b"])
    );
}
