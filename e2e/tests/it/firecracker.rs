//! Linux under Firecracker, from the image to the forks of forks.
//!
//! Where KVM runs no Linux these tests run in a nested host whose KVM does.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use e2e::{Daemon, share, until};
use nested::Where;
use serde_json::{Value, json};

use crate::network::{WEB, address, served, web};

/// A machine that has its own memory, and forks of it.
#[tokio::test]
async fn firecracker_runs_linux_and_its_forks() {
    let Some(daemon) = start("firecracker_runs_linux_and_its_forks", &[]).await else {
        return;
    };
    let id = daemon.boot("a").await;
    assert_eq!(daemon.show(&id).await["hypervisor"], "firecracker");
    assert_eq!(daemon.exec(&id, &["/bin/sh", "-c", "exit 3"]).await.code, 3);
    assert_eq!(daemon.count(&id).await, 1);

    daemon.act(&id, "standby").await.expect(200);
    daemon.act(&id, "restore").await.expect(200);
    assert_eq!(daemon.count(&id).await, 2);

    daemon.act(&id, "standby").await.expect(200);
    daemon.act(&id, "promote-template").await.expect(200);
    let forks = daemon.sprouts(&id, "f", 3).await;
    for (more, fork) in forks.iter().enumerate() {
        for _ in 0..more {
            daemon.count(fork).await;
        }
    }
    for (more, fork) in (0..).zip(&forks) {
        assert_eq!(daemon.count(fork).await, 3 + more);
        assert_eq!(daemon.sh(fork, "hostname").await, format!("f-{}", more + 1));
    }

    let fork = &forks[1];
    daemon.act(fork, "standby").await.expect(200);
    daemon.act(fork, "restore").await.expect(200);
    assert_eq!(daemon.count(fork).await, 5);
    daemon.act(&forks[0], "stop").await.expect(200);
    // The machine may be gone before the command can say how it ended.
    let _ = daemon
        .try_exec(&forks[2], &["/bin/sh", "-c", "echo exit > /dev/shm/ask"])
        .await;
    daemon.wait_for(&forks[2], "Stopped").await;
    assert_eq!(daemon.show(&forks[2]).await["exit_code"], 7);
    daemon.expect_tidy().await;
    for instance in forks.iter().chain([&id]) {
        daemon.delete(instance).await.expect(204);
    }
    daemon.expect_tidy().await;
}

/// Forks of a compressed image, whose pager is killed and whose daemon is, and a copy taken while a machine runs.
#[tokio::test]
async fn firecracker_runs_linux_on_a_pager() {
    let Some(mut daemon) = start("firecracker_runs_linux_on_a_pager", &[]).await else {
        return;
    };
    let id = daemon.boot("a").await;
    assert_eq!(daemon.count(&id).await, 1);
    let copied = json!({ "name": "c", "from_running": true });
    daemon.fork(&id, copied).await.expect(201);
    assert_eq!((daemon.count("c").await, daemon.count(&id).await), (2, 2));
    daemon.delete("c").await.expect(204);

    let compressed = json!({ "compression": { "enabled": true } });
    let path = format!("/instances/{id}/standby");
    daemon.post(&path, compressed).await.expect(200);
    daemon.act(&id, "promote-template").await.expect(200);
    let forks = daemon.sprouts(&id, "f", 2).await;
    for fork in &forks {
        assert_eq!(daemon.show(fork).await["memory_backend"], "uffd");
        assert_eq!(daemon.count(fork).await, 3);
    }
    assert_eq!(daemon.kill_pagers(), 1);
    for fork in &forks {
        assert_eq!(daemon.count(fork).await, 4);
    }
    until("a new pager", async || {
        let stats = daemon.get(&format!("/instances/{}/stats", forks[0])).await;
        stats.expect(200)["pager"]["takeovers"]
            .as_u64()
            .filter(|takeovers| *takeovers > 0)
    })
    .await;
    let firecracker = firecracker().expect("it was there");
    daemon.restart_with(&on(&firecracker)).await;
    for fork in &forks {
        assert_eq!(daemon.count(fork).await, 5);
    }
    daemon.act(&forks[0], "standby").await.expect(200);
    daemon.act(&forks[0], "restore").await.expect(200);
    assert_eq!(daemon.count(&forks[0]).await, 6);
    daemon.expect_tidy().await;
}

/// Each fork has a place of its own on the network.
#[tokio::test]
async fn firecracker_runs_linux_on_the_network() {
    let network = [("COPPICE_NETWORK", "auto"), ("COPPICE_NETWORK_SLOTS", "2")];
    let Some(daemon) = start("firecracker_runs_linux_on_the_network", &network).await else {
        return;
    };
    let id = web(&daemon, "web", Value::Null, Value::Null).await;
    let own = address(&daemon, &id).await;
    assert_eq!(served(&format!("http://{own}:{WEB}")).await, "web");
    daemon.act(&id, "standby").await.expect(200);
    let fork = daemon.fork(&id, share("fork")).await.expect(201);
    let fork = fork["id"].as_str().expect("an id");
    let address = address(&daemon, fork).await;
    assert_ne!(address, own);
    assert_eq!(served(&format!("http://{address}:{WEB}")).await, "web");
    daemon.delete(fork).await.expect(204);
    daemon.expect_tidy().await;
}

/// A daemon whose machines run on Firecracker; none if that was done elsewhere, or cannot be.
async fn start(test: &str, environment: &[(&str, &str)]) -> Option<Daemon> {
    let Some(firecracker) = firecracker() else {
        println!("skipped: there is no Firecracker among the assets");
        return None;
    };
    match Where::decide(why_not_here()) {
        Where::Here => {}
        Where::In(host) => {
            let name = format!("firecracker::{test}");
            let arguments = ["--exact", "--nocapture", &name].map(OsStr::new);
            let program = std::env::current_exe().expect("a test is a program");
            nested::program(&host, &program, &arguments);
            return None;
        }
        Where::Nowhere(why) => {
            println!("skipped: {why}");
            return None;
        }
    }
    let environment = [&on(&firecracker), environment].concat();
    Daemon::start_with(&environment).await
}

/// Without a QEMU no guest is tried on KVM first, which this test knows to run Linux.
fn on(firecracker: &Path) -> [(&str, &str); 3] {
    [
        ("COPPICE_HYPERVISOR", "firecracker"),
        ("COPPICE_FIRECRACKER", firecracker.to_str().expect("UTF-8")),
        ("COPPICE_QEMU", "/nonexistent"),
    ]
}

fn firecracker() -> Option<PathBuf> {
    let assets = std::env::var_os("COPPICE_ASSETS")?;
    let path = Path::new(&assets).join("firecracker/firecracker");
    path.is_file().then_some(path)
}

/// `cargo xtask test` has tried KVM and says what it found.
fn why_not_here() -> Option<String> {
    match std::env::var("COPPICE_TEST_ACCELERATOR").as_deref() {
        Ok("auto") => None,
        _ => Some("/dev/kvm runs no Linux guest".to_owned()),
    }
}
