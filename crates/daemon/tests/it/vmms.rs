//! Several VMMs on one host: each instance stays on its own.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use guest::{ExecSpec, LinkError};
use hypervisor::fake::Operation as Deed;
use memory::{Draft, Image, ImageId, ManifestFacts, Verified};
use model::{InstanceId, State};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::world::{OVERLAYS, PATIENCE, RAW, World, names};

/// A template on this VMM, with one count in its memory.
async fn template_on(world: &World, name: &str, vmm: &str) -> String {
    let id = world.running_on(name, vmm).await;
    assert_eq!(world.exec(&id, &["counter"]).await, "1");
    world.act(&id, "standby").await;
    world.act(&id, "promote-template").await;
    id
}

#[tokio::test]
async fn forks_of_templates_of_both_live_side_by_side() {
    let world = World::new().await;
    for (vmm, disk) in [
        (OVERLAYS, vec!["0.raw", "1.qcow2", "2.qcow2"]),
        (RAW, vec!["0.raw"]),
    ] {
        let template = template_on(&world, vmm, vmm).await;
        let path = format!("/instances/{template}/fork");
        let made = world.post(&path, json!({ "name": "f", "count": 3 })).await;
        let forks: Vec<String> = made.ok()["forks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["instance"]["id"].as_str().unwrap().to_owned())
            .collect();
        let mut tops = BTreeSet::new();
        for fork in &forks {
            assert_eq!(world.show(fork).await["hypervisor"], json!(vmm));
            assert_eq!(world.exec(fork, &["counter"]).await, "2", "its own memory");
            let dir = world.layout.instance(&fork.parse().unwrap()).disk();
            assert_eq!(names(&dir), disk);
            let top = std::fs::metadata(dir.join(disk.last().unwrap())).unwrap();
            assert_eq!(top.nlink(), 1, "what it writes to is nobody else's");
            tops.insert(top.ino());
        }
        assert_eq!(tops.len(), forks.len());
        world.act(&forks[0], "standby").await;
        world.act(&forks[0], "restore").await;
        assert_eq!(world.exec(&forks[0], &["counter"]).await, "3");
        for fork in &forks {
            world.delete(fork).await;
        }
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn a_restart_finds_the_machines_of_both() {
    let mut world = World::new().await;
    let mut pids = Vec::new();
    for vmm in [OVERLAYS, RAW] {
        let template = template_on(&world, vmm, vmm).await;
        let fork = world
            .fork(&template, json!({ "name": format!("{vmm}-fork") }))
            .await;
        pids.push((fork.clone(), world.machines.pid(&fork).await.unwrap()));
    }
    let before = world.picture().await;
    world.restart().await;
    assert_eq!(world.picture().await, before);
    for (fork, pid) in pids {
        assert_eq!(world.machines.pid(&fork).await, Some(pid));
        assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn machines_of_either_that_no_record_names_are_ended() {
    let mut world = World::new().await;
    for vmm in [OVERLAYS, RAW] {
        let id = world.running_on(vmm, vmm).await;
        world.kill_daemon().await;
        world.records.remove(&id.parse().unwrap()).unwrap();
        assert!(world.machines.pid(&id).await.is_some());
        world.start_daemon().await;
        assert_eq!(world.daemon().swept.directories, 1, "{vmm}");
        assert_eq!(world.machines.pid(&id).await, None);
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn what_is_not_known_or_not_here_is_refused_with_what_to_do() {
    let world = World::new().await;
    let asked = async |vmm: &str| {
        let mut body = World::plain("a");
        body["hypervisor"] = json!(vmm);
        world.post("/instances", body).await
    };
    for unknown in ["qemu-microvm", "cloud-hypervisor", "vz", ""] {
        let answer = asked(unknown).await;
        let text = answer.refused(400, "invalid_request");
        assert!(text.contains(OVERLAYS) && text.contains(RAW), "{text}");
    }
    let answer = asked("absent").await;
    let text = answer.refused(501, "not_supported");
    assert!(text.contains("there is none in any test"), "{text}");
    assert_eq!(world.all_records(), Vec::new());

    let said = world.get("/capabilities").await.ok();
    let runtime = |name: &str| -> Value {
        let all = said["runtimes"].as_array().unwrap();
        all.iter()
            .find(|one| one["name"] == json!(name))
            .unwrap()
            .clone()
    };
    assert_eq!(said["default_runtime"]["name"], json!(OVERLAYS));
    assert_eq!(runtime(RAW)["available"], json!(true));
    assert_eq!(runtime("absent")["available"], json!(false));
    let why = &runtime("absent")["unavailable_reason"];
    assert_eq!(why, &json!("there is none in any test"));
}

#[tokio::test]
async fn a_fork_is_of_the_vmm_of_its_memory() {
    let world = World::new().await;
    let template = template_on(&world, "template", OVERLAYS).await;
    let other = world.running_on("other", RAW).await;
    world.act(&other, "stop").await;
    let ask = async |body: Value, source: &str| {
        let path = format!("/instances/{source}/fork");
        world.post(&path, body).await
    };
    let body = json!({ "name": "f", "template_id": template });
    let text = ask(body, &other).await.refused(400, "invalid_request");
    assert!(text.contains(OVERLAYS) && text.contains(RAW), "{text}");
    let body = json!({ "name": "f", "hypervisor": RAW });
    let text = ask(body, &template).await.refused(400, "invalid_request");
    assert!(text.contains(OVERLAYS) && text.contains(RAW), "{text}");
    let body = json!({ "name": "f", "hypervisor": OVERLAYS });
    ask(body, &template).await.ok();
    world.delete_everything().await;
}

/// Puts an image of another VMM where `from` stands, under the same id.
fn rewrite(from: &Path, vmm: &str) {
    let old = Image::open(from).unwrap();
    let verified = Verified::default();
    let id: ImageId = old.manifest().image_id.clone();
    let aside = from.with_extension("aside");
    std::fs::rename(from, &aside).unwrap();
    let old = Image::open(&aside).unwrap();
    let mut draft = Draft::create(from, id, &verified).unwrap();
    for layer in &old.manifest().layers {
        draft.link_layer(&old, &layer.id).unwrap();
    }
    std::fs::copy(old.state_path(), draft.state_path()).unwrap();
    for (position, disk) in old.manifest().disks.iter().enumerate() {
        let disk = memory::NewDisk {
            source: old.disk_path(position),
            format: disk.format,
            virtual_bytes: disk.virtual_bytes,
            how: memory::How::Link,
        };
        draft.add_disk(&disk).unwrap();
    }
    let mut machine = old.manifest().machine.clone();
    vmm.clone_into(&mut machine.vmm.name);
    let facts = ManifestFacts {
        machine,
        root_digest: old.manifest().root.digest.clone(),
    };
    draft.finish(facts).unwrap();
    old.remove().unwrap();
}

#[tokio::test]
async fn memory_of_another_vmm_is_refused_before_anything_is_made_of_it() {
    let world = World::new().await;
    let id = world.standby("a").await;
    let record = world.record(&id);
    let image = record.standby.unwrap();
    let dir = world.layout.instance(&id.parse().unwrap());
    rewrite(&dir.image(&image), RAW);
    let path = |verb: &str| format!("/instances/{id}/{verb}");
    let mut refused = vec![
        world.call("POST", &path("restore"), "").await,
        world.call("POST", &path("promote-template"), "").await,
    ];
    for target in ["Running", "Standby", "Stopped"] {
        let body = json!({ "name": "f", "target_state": target });
        refused.push(world.post(&path("fork"), body).await);
    }
    for answer in refused {
        let text = answer.refused(409, "image_mismatch");
        assert!(text.contains("vmm.name") && text.contains(RAW), "{text}");
    }
    assert_eq!(world.state(&id).await, "Standby");
    assert_eq!(names(&dir.disk()), Vec::<String>::new());
    world.delete_everything().await;
}

#[tokio::test]
async fn without_its_vmm_an_instance_is_kept_and_what_does_not_run_can_go() {
    let mut world = World::new().await;
    let asleep = world.running_on("asleep", RAW).await;
    world.act(&asleep, "standby").await;
    let stopped = world.running_on("stopped", RAW).await;
    world.act(&stopped, "stop").await;
    world.has_raw = false;
    world.restart().await;
    assert_eq!(world.state(&asleep).await, "Standby");
    for (id, verb) in [
        (&asleep, "restore"),
        (&asleep, "promote-template"),
        (&stopped, "start"),
    ] {
        let path = format!("/instances/{id}/{verb}");
        let text = world.call("POST", &path, "").await;
        let text = text.refused(501, "not_supported");
        assert!(text.contains("it was taken away"), "{text}");
    }
    world.delete(&stopped).await;
    world.has_raw = true;
    world.restart().await;
    world.act(&asleep, "restore").await;
    world.reach(&asleep, State::Running).await;
    world.delete_everything().await;
}

#[tokio::test]
async fn a_machine_that_loses_its_line_when_it_is_saved_is_thawed_at_once() {
    let world = World::on(RAW).await;
    let source = world.running("source").await;
    assert_eq!(world.exec(&source, &["counter"]).await, "1");
    let mut held = world.host.hold_next(Deed::Restore);
    let path = format!("/instances/{source}/fork");
    let asking = world.post(&path, json!({ "name": "fork", "from_running": true }));
    tokio::pin!(asking);
    tokio::select! {
        answer = &mut asking => panic!("{answer:?}"),
        reached = held.reached() => assert!(reached),
    }
    // The fork has not begun, and its source is not kept waiting for it.
    assert!(!world.machines.agent(&source).is_frozen());
    assert_eq!(world.exec(&source, &["counter"]).await, "2");
    held.release();
    asking.await.ok();
    // It was not looked for as a guest that nobody had heard of for a while.
    assert_eq!(world.machines.agent(&source).identities(), []);
    assert_eq!(world.exec(&source, &["counter"]).await, "3");
    world.delete_everything().await;
}

#[tokio::test]
async fn a_command_of_a_line_that_is_lost_by_saving_is_not_waited_for() {
    let world = World::on(RAW).await;
    let source = world.running("source").await;
    let instances = Arc::clone(&world.daemon().instances);
    let id: InstanceId = source.parse().unwrap();
    let running = world.daemon().runtime().spawn(async move {
        let link = instances.wait_for_link(&id).await.unwrap();
        let spec = ExecSpec {
            argv: vec!["sleep".to_owned(), "forever".to_owned()],
            ..ExecSpec::default()
        };
        let (_input, mut output) = link.exec(spec).await.unwrap().split();
        output.next().await.map(drop)
    });
    world
        .fork(&source, json!({ "name": "fork", "from_running": true }))
        .await;
    let ended = timeout(PATIENCE, running).await.expect("an end").unwrap();
    assert!(matches!(ended, Err(LinkError::Closed)), "{ended:?}");
    world.delete_everything().await;
}
