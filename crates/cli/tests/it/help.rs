//! The words of the help texts.

use crate::cli::{coppice, write_down};

fn check(name: &str, args: &[&str]) {
    let output = coppice(args).output().expect("it starts");
    insta::assert_snapshot!(name, write_down(args, &output));
}

#[test]
fn every_command_explains_itself() {
    check("help", &["--help"]);
    for command in [
        "run",
        "create",
        "ps",
        "inspect",
        "exec",
        "logs",
        "cp",
        "start",
        "stop",
        "update",
        "standby",
        "restore",
        "promote",
        "demote",
        "fork",
        "tree",
        "rm",
        "wait",
        "stats",
        "completions",
    ] {
        check(&format!("help-{command}"), &[command, "--help"]);
    }
    for command in ["import", "ls", "rm"] {
        check(
            &format!("help-image-{command}"),
            &["image", command, "--help"],
        );
    }
    for command in ["create", "ls", "inspect", "rm"] {
        check(
            &format!("help-ingress-{command}"),
            &["ingress", command, "--help"],
        );
    }
}

#[test]
fn a_command_that_is_not_there_is_a_usage_error() {
    check("usage-unknown", &["frobnicate"]);
    check("usage-fork-count", &["fork", "base", "--count", "1001"]);
    check("usage-rm-nothing", &["rm"]);
    check("usage-update-nothing", &["update", "web"]);
    let late = ["fork", "base", "--post-fork-timeout", "5s"];
    check("usage-fork-timeout-of-nothing", &late);
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = coppice(&["completions", shell])
            .output()
            .expect("it starts");
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        for word in [
            "standby",
            "promote",
            "ingress",
            "--share-memory",
            "--publish",
        ] {
            let word = word.trim_start_matches("--");
            assert!(script.contains(word), "{shell} lacks {word}");
        }
    }
}
