//! How instances are connected: what is sent, and what is shown.

use api::instances::{
    EgressMode, Instance, InstanceEgress, InstanceNetwork, InstanceState, PublishedPort, Transport,
};

use crate::cli::{coppice, coppice_at, transcript, write_down};
use crate::fixtures::{fork_of, instance, recent, template};
use crate::server::Script;

/// A web server as its users know it.
fn web() -> Instance {
    let port = |host_ip: Option<&str>, host_port, port, protocol| PublishedPort {
        host_ip: host_ip.map(str::to_owned),
        host_port,
        port,
        protocol,
    };
    let mut web = instance("web", InstanceState::Running);
    web.tags.insert("network".to_owned(), "team".to_owned());
    web.network = InstanceNetwork {
        enabled: true,
        name: Some("default".to_owned()),
        ip: Some("10.208.0.5".to_owned()),
        mac: Some("02:00:00:00:00:02".to_owned()),
        bandwidth_upload: Some("8Mbps".to_owned()),
        egress: Some(InstanceEgress {
            mode: EgressMode::AllowList,
            cidrs: vec!["192.0.2.0/24".to_owned()],
            domains: vec!["*.example.com".to_owned()],
        }),
        allow: vec!["10.20.0.0/16".to_owned()],
        publish: vec![
            port(None, 8080, 80, Transport::Tcp),
            port(Some("127.0.0.1"), 5353, 53, Transport::Udp),
        ],
        ..InstanceNetwork::default()
    };
    web
}

fn made() -> Script {
    Script::default().ok("POST /instances", &web())
}

#[test]
fn create_says_how_it_is_connected() {
    let all = [
        "create",
        "demo",
        "--name",
        "web",
        "--network",
        "-p",
        "8080:80",
        "--publish",
        "127.0.0.1:5353:53/udp",
        "--egress-domain",
        "*.example.com",
        "--egress-cidr",
        "192.0.2.0/24",
        "--allow",
        "10.20.0.0/16",
        "--bandwidth-up",
        "8Mbps",
        "--bandwidth-down",
        "none",
        "--group",
        "team",
        "-l",
        "app=web",
    ];
    insta::assert_snapshot!("network-create", transcript(&made().serve(), &all));
    for (name, flag) in [
        ("network-none", &["--no-network"][..]),
        ("network-egress-none", &["--egress", "none"]),
        ("network-egress-nothing-listed", &["--egress", "allow-list"]),
    ] {
        let args = [&["create", "demo", "--name", "web"], flag].concat();
        insta::assert_snapshot!(name, transcript(&made().serve(), &args));
    }
}

#[test]
fn contradictions_are_usage_errors() {
    let mut text = String::new();
    for flags in [
        &["-p", "80"][..],
        &["-p", "80:http"],
        &["-p", "[::1]:80:80"],
        &["--no-network", "-p", "80:80"],
        &["--egress", "open", "--egress-cidr", "192.0.2.0/24"],
        &["--egress", "all"],
        &["--group", ""],
        &["--group", "a", "-l", "network=b"],
    ] {
        let args = [&["create", "demo", "--name", "web"], flags].concat();
        let output = coppice(&args).output().expect("it starts");
        text.push_str(&write_down(&args, &output));
    }
    insta::assert_snapshot!("network-contradictions", text);
}

#[test]
fn a_fork_stays_what_its_source_is_but_for_what_is_said() {
    let script = || {
        Script::default()
            .ok("GET /instances/base", &template("base", 0))
            .ok(
                "POST /instances/base/fork",
                &fork_of("base", "web", InstanceState::Running),
            )
            .serve()
    };
    for (name, flags) in [
        ("network-fork", &["-p", "8080:80", "--no-allow"][..]),
        ("network-fork-group", &["--group", "team"]),
        (
            "network-fork-labels",
            &["--group", "team", "-l", "only=this"],
        ),
    ] {
        let args = [&["fork", "base", "web"], flags].concat();
        insta::assert_snapshot!(name, transcript(&script(), &args));
    }
}

#[test]
fn update_opens_and_closes() {
    let script = || {
        Script::default()
            .ok("GET /instances/web", &web())
            .ok("PATCH /instances/web", &web())
            .serve()
    };
    for (name, flags) in [
        ("network-update-publish", &["-p", "8081:80"][..]),
        (
            "network-update-close",
            &[
                "--no-publish",
                "--no-allow",
                "--egress",
                "open",
                "--bandwidth-up",
                "none",
            ],
        ),
        ("network-update-join", &["--group", "other"]),
        ("network-update-leave", &["--no-group"]),
        (
            "network-update-only-group",
            &["--no-tags", "--group", "other"],
        ),
    ] {
        let args = [&["update", "web"], flags].concat();
        insta::assert_snapshot!(name, transcript(&script(), &args));
    }
}

#[test]
fn addresses_and_ports_are_shown() {
    let asleep = Instance {
        network: InstanceNetwork {
            ip: None,
            ..web().network
        },
        ..instance("asleep", InstanceState::Standby)
    };
    let all = vec![
        recent(web()),
        recent(asleep.clone()),
        recent(instance("alone", InstanceState::Running)),
    ];
    let fake = Script::default()
        .ok("GET /instances", &all)
        .ok("GET /instances/web", &web())
        .ok("GET /instances/asleep", &asleep)
        .serve();
    let mut text = String::new();
    for args in [&["ps", "-a"][..], &["inspect", "web", "asleep"]] {
        let output = coppice_at(&fake, args).output().expect("it starts");
        text.push_str(&write_down(args, &output));
    }
    insta::assert_snapshot!("network-shown", text);
}

#[test]
fn refusals_say_what_to_do() {
    let mut text = String::new();
    for (status, code, message) in [
        (
            409,
            "port_in_use",
            "host port 8080/tcp is in use by a process of the host",
        ),
        (
            409,
            "insufficient_resources",
            "all 5 addresses of the pool are in use",
        ),
        (
            500,
            "dependency_missing",
            "this host cannot give instances a network",
        ),
    ] {
        let fake = Script::default()
            .error("POST /instances", status, code, message)
            .serve();
        let args = ["create", "demo", "--name", "web", "-p", "8080:80"];
        let output = coppice_at(&fake, &args).output().expect("it starts");
        text.push_str(&write_down(&args, &output));
    }
    insta::assert_snapshot!("network-refusals", text);
}
