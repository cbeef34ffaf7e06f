//! Instances on the network, as the API shows and changes it.

use std::time::Duration;

use daemon::instances::Networking;
use model::network::{Egress, Policy};
use network::Lack;
use network::fake::FakeHost;
use serde_json::{Value, json};

use crate::world::World;

fn address(instance: &Value) -> String {
    let text = instance["network"]["ip"].as_str().unwrap();
    assert!(text.parse::<std::net::Ipv4Addr>().is_ok(), "{text}");
    text.to_owned()
}

/// What the network itself lets the machine at `address` do.
fn policy(world: &World, address: &str) -> Policy {
    let Networking::Ready(network) = world.daemon().instances.network() else {
        panic!("no network");
    };
    network.owner_of(address.parse().unwrap()).unwrap().policy
}

async fn create(world: &World, name: &str, network: Value) -> Value {
    let mut request = World::plain(name);
    request["network"] = network;
    let made = world.post("/instances", request).await.ok();
    let id = made["id"].as_str().unwrap();
    world.reach(id, model::State::Running).await;
    world.show(id).await
}

#[tokio::test]
async fn a_machine_has_an_address_as_long_as_it_runs() {
    let world = World::new().await;
    let id = world.running("a").await;
    let shown = world.show(&id).await;
    assert_eq!(shown["network"]["enabled"], json!(true));
    assert_eq!(shown["network"]["name"], json!("default"));
    assert_eq!(shown["network"]["mac"], json!(network::guest::mac()));
    address(&shown);
    for verbs in [["standby", "restore"], ["stop", "start"]] {
        world.act(&id, verbs[0]).await;
        assert_eq!(world.show(&id).await["network"]["ip"], Value::Null);
        world.act(&id, verbs[1]).await;
        world.reach(&id, model::State::Running).await;
        address(&world.show(&id).await);
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn forks_have_addresses_of_their_own_from_the_moment_they_are_answered() {
    let world = World::with_warm_forks(1, Duration::from_secs(3600)).await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    let mut seen = std::collections::BTreeSet::new();
    for name in ["f", "g"] {
        let made = world
            .post(&path, json!({ "name": name, "count": 4 }))
            .await
            .ok();
        for entry in made["forks"].as_array().unwrap() {
            assert!(seen.insert(address(&entry["instance"])));
        }
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn a_fork_takes_over_the_policy_but_not_the_ports() {
    let world = World::with_warm_forks(1, Duration::from_secs(3600)).await;
    let network = json!({
        "bandwidth_upload": "10Mbps",
        "egress": { "mode": "allow-list", "domains": ["*.example.com"], "cidrs": ["192.0.2.1"] },
        "publish": [{ "host_port": 8080, "port": 80 }],
    });
    let mut request = World::plain("source");
    request["network"] = network;
    request["tags"] = json!({ "network": "web" });
    let made = world.post("/instances", request).await.ok();
    let source = made["id"].as_str().unwrap().to_owned();
    world.reach(&source, model::State::Running).await;
    let before = policy(&world, &address(&world.show(&source).await));
    assert_eq!(before.group.as_deref(), Some("web"));
    assert_eq!(before.publish.len(), 1);
    world.act(&source, "standby").await;
    world.act(&source, "promote-template").await;
    let path = format!("/instances/{source}/fork");
    for (name, port) in [("first", 9001), ("second", 9002)] {
        let body =
            json!({ "name": name, "network": { "publish": [{ "host_port": port, "port": 80 }] } });
        let fork = world.post(&path, body).await.ok();
        let policy = policy(&world, &address(&fork));
        assert_eq!(policy.bandwidth, before.bandwidth);
        assert_eq!(policy.egress, before.egress);
        assert_eq!(policy.group, before.group);
        assert_eq!(policy.publish[0].host_port, port);
        assert_eq!(fork["network"]["egress"]["cidrs"], json!(["192.0.2.1/32"]));
    }
    let taken =
        json!({ "name": "third", "network": { "publish": [{ "host_port": 9001, "port": 80 }] } });
    let refused = world.post(&path, taken).await;
    refused.refused(409, "port_in_use");
    let many = json!({ "name": "m", "count": 2, "network": { "publish": [{ "host_port": 9003, "port": 80 }] } });
    assert_eq!(world.post(&path, many).await.status, 400);
    world.delete_everything().await;
}

#[tokio::test]
async fn a_patch_holds_at_once_and_over_a_restart() {
    let mut world = World::new().await;
    let made = create(&world, "a", json!({})).await;
    let (id, ip) = (made["id"].as_str().unwrap().to_owned(), address(&made));
    let path = format!("/instances/{id}");
    let body = json!({ "tags": { "network": "db" }, "network": { "egress": { "mode": "none" } } });
    world.call("PATCH", &path, &body.to_string()).await.ok();
    let changed = policy(&world, &ip);
    assert_eq!(
        (changed.egress.clone(), changed.group.as_deref()),
        (Egress::None, Some("db"))
    );
    world.restart().await;
    world.picture().await;
    assert_eq!(address(&world.show(&id).await), ip);
    assert_eq!(policy(&world, &ip), changed);
    let port = json!({ "network": { "publish": [{ "host_port": 0, "port": 80 }] } });
    let refused = world.call("PATCH", &path, &port.to_string()).await;
    assert_eq!(refused.status, 400);
    world.delete_everything().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let world = World::new().await;
    for (network, code) in [
        (
            json!({ "bandwidth_download": "fast" }),
            "invalid_bandwidth_download",
        ),
        (
            json!({ "bandwidth_upload": "1bps" }),
            "invalid_bandwidth_upload",
        ),
        (json!({ "egress": { "enabled": true } }), "invalid_request"),
        (
            json!({ "egress": { "domains": ["example.com"] } }),
            "invalid_request",
        ),
        (
            json!({ "egress": { "mode": "allow-list", "domains": ["exa mple"] } }),
            "invalid_request",
        ),
        (json!({ "allow": ["10.0.0.0/33"] }), "invalid_request"),
        (
            json!({ "enabled": false, "allow": ["10.0.0.0/8"] }),
            "invalid_request",
        ),
        (
            json!({ "publish": [{ "host_ip": "::1", "host_port": 1, "port": 1 }] }),
            "invalid_request",
        ),
    ] {
        let mut request = World::plain("a");
        request["network"] = network.clone();
        let refused = world.post("/instances", request).await;
        refused.refused(400, code);
    }
    assert_eq!(world.all_records().len(), 0);
}

#[tokio::test]
async fn a_full_pool_refuses_before_anything_is_made() {
    // Five slots.
    let world = World::with_pool("10.9.8.0/29").await;
    let template = world.template("template").await;
    let path = format!("/instances/{template}/fork");
    let made = world
        .post(&path, json!({ "name": "f", "count": 6 }))
        .await
        .ok();
    let errors: Vec<_> = made["forks"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["error"]["code"].as_str())
        .collect();
    assert_eq!(errors, ["insufficient_resources"]);
    let refused = world.post("/instances", World::plain("late")).await;
    refused.refused(409, "insufficient_resources");
    world.picture().await;
    let mut request = World::plain("without");
    request["network"] = json!({ "enabled": false });
    world.post("/instances", request).await.ok();
    world.delete_everything().await;
}

#[tokio::test]
async fn a_host_without_networks_runs_instances_without() {
    let host = FakeHost::new();
    host.lack(Lack {
        what: "no TUN device".to_owned(),
        remedy: "load the module tun".to_owned(),
        fatal: true,
    });
    let world = World::with_network(host).await;
    let id = world.running("a").await;
    let shown = world.show(&id).await;
    assert_eq!(shown["network"]["enabled"], json!(false));
    assert_eq!(shown["network"]["ip"], Value::Null);
    let capabilities = world.get("/capabilities").await.ok();
    assert_eq!(capabilities["network"]["model"], json!("none"));
    let why = capabilities["network"]["unavailable_reason"].as_str();
    assert!(why.unwrap().contains("load the module tun"), "{why:?}");
    let mut request = World::plain("b");
    request["network"] = json!({ "enabled": true });
    let refused = world.post("/instances", request).await;
    refused.refused(500, "dependency_missing");
    assert!(
        refused.message().contains("load the module tun"),
        "{refused:?}"
    );
    world.delete_everything().await;
}
