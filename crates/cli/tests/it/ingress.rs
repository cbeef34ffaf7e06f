//! The ingress commands.

use std::collections::BTreeMap;

use api::ingresses::{Ingress, IngressMatch, IngressRule, IngressTarget, RequestHeaderAuth};
use time::{Duration, OffsetDateTime};

use crate::cli::{coppice_at, transcript, write_down};
use crate::server::Script;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn rule(hostname: &str, port: u16, tls: bool) -> IngressRule {
    IngressRule {
        matches: IngressMatch {
            hostname: hostname.to_owned(),
            port,
        },
        target: IngressTarget {
            instance: "web".to_owned(),
            port: 8080,
        },
        tls,
        redirect_http: tls,
        request_header_auth: None,
        wake: !tls,
    }
}

fn ingress(name: &str, rules: Vec<IngressRule>) -> Ingress {
    Ingress {
        id: format!("{name}x{:0>1$}", "", 23 - name.len()),
        name: name.to_owned(),
        rules,
        tags: BTreeMap::new(),
        created_at: OffsetDateTime::now_utc() - Duration::minutes(5),
    }
}

fn kept() -> Ingress {
    let mut rule = rule("{instance}.example.com", 8443, true);
    rule.target.instance = "{instance}".to_owned();
    rule.request_header_auth = Some(RequestHeaderAuth {
        header: "X-Key".to_owned(),
        value: SECRET.to_owned(),
    });
    Ingress {
        created_at: time::macros::datetime!(2026-01-01 00:00 UTC),
        tags: BTreeMap::from([("team".to_owned(), "a".to_owned())]),
        ..ingress("kept", vec![rule])
    }
}

#[test]
fn create_sends_one_rule() {
    let script = || {
        let made = ingress("web", vec![rule("web.example.com", 80, false)]);
        Script::default().ok("POST /ingresses", &made).serve()
    };
    let least = [
        "ingress",
        "create",
        "web",
        "--hostname",
        "web.example.com",
        "--to",
        "web:8080",
    ];
    insta::assert_snapshot!("ingress-create", transcript(&script(), &least));
    let more = ["--tls", "--redirect-http", "--wake", "-l", "team=a"];
    let args = [&least[..], &more].concat();
    insta::assert_snapshot!("ingress-create-tls", transcript(&script(), &args));
    let args = [&least[..], &["--port", "8080"]].concat();
    insta::assert_snapshot!("ingress-create-port", transcript(&script(), &args));
}

#[test]
fn the_secret_of_a_header_comes_from_elsewhere() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    let from_file = format!("X-Key=file:{}", file.display());
    for source in [from_file.as_str(), "X-Key=env:KEY"] {
        let fake = Script::default().ok("POST /ingresses", &kept()).serve();
        let args = [
            "ingress",
            "create",
            "kept",
            "--hostname",
            "a.test",
            "--to",
            "a:1",
        ];
        let mut command = coppice_at(&fake, &args);
        command.args(["--header-auth", source]).env("KEY", SECRET);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let wanted = format!(r#""request_header_auth":{{"header":"X-Key","value":"{SECRET}"}}"#);
        assert!(fake.asked().contains(&wanted), "{}", fake.asked());
    }
    let fake = Script::default().serve();
    for wrong in [
        format!("X-Key={SECRET}"),
        format!("X-Key: {SECRET}"),
        format!("=env:{SECRET}"),
    ] {
        let args = [
            "ingress",
            "create",
            "kept",
            "--hostname",
            "a.test",
            "--to",
            "a:1",
            "--header-auth",
            wrong.as_str(),
        ];
        let output = coppice_at(&fake, &args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("HEADER=env:VARIABLE"), "{stderr}");
        assert!(!stderr.contains(SECRET), "{stderr}");
    }
    let unset = ["ingress", "create", "a", "--hostname", "a.test", "--to"];
    let unset = [&unset[..], &["a:1", "--header-auth", "X-Key=env:GONE"]].concat();
    insta::assert_snapshot!("ingress-secret-unset", transcript(&fake, &unset));
}

#[test]
fn ingresses_are_shown_without_secrets_and_removed() {
    let two = vec![
        rule("web.example.com", 80, false),
        rule("web.example.com", 443, true),
    ];
    let listed = vec![
        ingress("web", two),
        Ingress {
            created_at: OffsetDateTime::now_utc() - Duration::hours(2),
            ..kept()
        },
    ];
    let fake = Script::default()
        .ok("GET /ingresses", &listed)
        .ok("GET /ingresses/kept", &kept())
        .empty("DELETE /ingresses/web")
        .serve();
    let mut text = String::new();
    for args in [
        &["ingress", "ls"][..],
        &["ingress", "inspect", "kept", "ghost"],
        &["ingress", "rm", "web", "ghost"],
    ] {
        let output = coppice_at(&fake, args).output().expect("it starts");
        text.push_str(&write_down(args, &output));
    }
    assert!(!text.contains(SECRET), "{text}");
    insta::assert_snapshot!("ingress-shown", text);
    let json = coppice_at(&fake, &["--json", "ingress", "ls"])
        .output()
        .expect("it starts");
    let told: Vec<Ingress> = serde_json::from_slice(&json.stdout).expect("the answer");
    assert_eq!(told, listed);
}

#[test]
fn refusals_say_what_to_do() {
    let mut text = String::new();
    for (status, code, message) in [
        (
            409,
            "already_exists",
            "the name \"web\" is taken by another ingress",
        ),
        (
            409,
            "hostname_in_use",
            "rules web/0 and all/0 both want web.test on port 80",
        ),
        (
            409,
            "port_in_use",
            "tcp port 0.0.0.0:80, wanted by ingress, is in use",
        ),
        (
            400,
            "domain_not_allowed",
            "web/0: no certificate covers web.test",
        ),
        (
            400,
            "instance_not_found",
            "the target \"web\" is no instance",
        ),
    ] {
        let fake = Script::default()
            .error("POST /ingresses", status, code, message)
            .serve();
        let args = [
            "ingress",
            "create",
            "web",
            "--hostname",
            "web.test",
            "--to",
            "web:80",
        ];
        let output = coppice_at(&fake, &args).output().expect("it starts");
        text.push_str(&write_down(&args, &output));
    }
    let fake = Script::default().serve();
    for wrong in [
        &["--to", "web"][..],
        &["--to", ":80"],
        &["--to", "web:0"],
        &["--to", "web:80", "--redirect-http"],
        &["--to", "web:80", "--port", "0"],
    ] {
        let args = [
            &["ingress", "create", "web", "--hostname", "web.test"],
            wrong,
        ]
        .concat();
        let output = coppice_at(&fake, &args).output().expect("it starts");
        text.push_str(&write_down(&args, &output));
    }
    insta::assert_snapshot!("ingress-refusals", text);
}
