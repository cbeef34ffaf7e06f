//! Forks whose memory comes from a pager: who gets one, and what becomes of them.

use std::time::Duration;

use daemon::instances::PagerPolicy;
use model::{BackendWish, State};
use serde_json::{Value, json};

use crate::world::{PAGING, PATIENCE, TOUCHED, World};

fn uffd(name: &str) -> Value {
    json!({ "name": name, "memory_backend": "uffd" })
}

/// A template, with one counted in its memory.
async fn template(world: &World) -> String {
    let source = world.running("template").await;
    assert_eq!(world.exec(&source, &["counter"]).await, "1");
    world.act(&source, "standby").await;
    world.act(&source, "promote-template").await;
    source
}

async fn stats(world: &World, id: &str) -> Value {
    world.get(&format!("/instances/{id}/stats")).await.ok()
}

/// Waits until what `look` sees fits.
async fn until<T>(mut look: impl AsyncFnMut() -> T, fits: impl Fn(&T) -> bool) -> T {
    let reached = async {
        loop {
            let seen = look().await;
            if fits(&seen) {
                return seen;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap()
}

async fn until_nobody_is_served(world: &World) {
    until(async || world.pagers.images(), |images| *images == 0).await;
}

/// As the exec route does when a command has given its result.
async fn run_a_command(world: &World, id: &str) {
    assert_eq!(world.exec(id, &["counter"]).await, "2");
    let parsed = id.parse().unwrap();
    let instances = std::sync::Arc::clone(&world.daemon().instances);
    let noted = async move { instances.executed(&parsed) };
    world.daemon().runtime().spawn(noted).await.unwrap();
}

#[tokio::test]
async fn forks_on_a_pager_are_forks_like_any_others() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let mut body = uffd("fork");
    body["count"] = json!(8);
    let path = format!("/instances/{template}/fork");
    let made = world.post(&path, body).await.ok();
    let forks: Vec<String> = made["forks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fork| fork["instance"]["id"].as_str().unwrap().to_owned())
        .collect();
    let mut served = world.pagers.served();
    let mut wanted = forks.clone();
    served.sort();
    wanted.sort();
    assert_eq!(served, wanted);
    assert_eq!(
        (world.pagers.images(), world.pagers.openings()),
        (1, 1),
        "one pager for all"
    );
    for fork in &forks {
        let shown = world.show(fork).await;
        assert_eq!(shown["memory_backend"], "uffd");
        assert_eq!(shown["memory"]["mode"], "shared");
        assert_eq!(world.exec(fork, &["counter"]).await, "2");
        assert_eq!(stats(&world, fork).await["pager"]["faults"], 1);
    }
    let file = world.fork(&template, json!({ "name": "file" })).await;
    assert_eq!(
        world.show(&file).await["memory_backend"],
        "file",
        "a plain image is mapped"
    );
    assert_eq!(stats(&world, &file).await["pager"], Value::Null);
    for fork in &forks {
        world.delete(fork).await;
    }
    until_nobody_is_served(&world).await;
    let places = async || std::fs::read_dir(world.layout.pagers()).unwrap().count();
    until(places, |left| *left == 0).await;
}

#[tokio::test]
async fn the_forks_wish_goes_before_the_templates_and_that_before_the_servers() {
    let world = World::with_pagers(PagerPolicy {
        backend: BackendWish::Uffd,
        ..PAGING
    })
    .await;
    let template = template(&world).await;
    let backend = async |name: &str, wish: Option<&str>| {
        let mut body = json!({ "name": name });
        if let Some(wish) = wish {
            body["memory_backend"] = json!(wish);
        }
        let fork = world.fork(&template, body).await;
        world.show(&fork).await["memory_backend"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(backend("of-the-server", None).await, "uffd");
    let patch = json!({ "memory_backend": "file" }).to_string();
    let path = format!("/instances/{template}");
    let patched = world.call("PATCH", &path, &patch).await.ok();
    assert_eq!(patched["fork_memory_backend"], "file");
    assert_eq!(backend("of-the-template", None).await, "file");
    assert_eq!(backend("its-own", Some("uffd")).await, "uffd");
    assert_eq!(backend("what-fits", Some("auto")).await, "file");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_in_words() {
    let world = World::new().await;
    let source = world.standby("source").await;
    let forks = json!({ "memory_backend": "uffd" }).to_string();
    let promote = format!("/instances/{source}/promote-template");
    let words = world
        .call("POST", &promote, &forks)
        .await
        .refused(400, "invalid_request");
    assert!(
        words.contains("fake") && words.contains("auto or file"),
        "{words}"
    );
    assert_eq!(world.state(&source).await, "Standby");
    world.act(&source, "promote-template").await;
    let fork = format!("/instances/{source}/fork");
    let words = world
        .post(&fork, uffd("fork"))
        .await
        .refused(400, "invalid_request");
    assert!(words.contains("memory_backend is uffd"), "{words}");
    let patch = world
        .call("PATCH", &format!("/instances/{source}"), &forks)
        .await;
    patch.refused(400, "invalid_request");
    assert_eq!(world.show(&source).await["fork_count"], 0);

    let able = World::with_pagers(PAGING).await;
    let source = able.standby("source").await;
    let copy = able
        .post(&format!("/instances/{source}/fork"), uffd("copy"))
        .await;
    assert!(copy.refused(400, "invalid_request").contains("full copy"));
}

#[tokio::test]
async fn a_host_without_userfaultfd_takes_files_and_says_why() {
    let policy = PagerPolicy {
        backend: BackendWish::Uffd,
        ..PAGING
    };
    let mut world = World::with_pagers(policy).await;
    let capable = world.get("/capabilities").await.ok();
    assert_eq!(capable["memory"], json!({ "backends": ["file", "uffd"] }));
    let template = template(&world).await;
    let early = world.fork(&template, uffd("early")).await;
    world.kill_daemon().await;
    world.pagers = world.pagers.lacking("the kernel was built without it");
    world.start_daemon().await;
    // What was served before goes on: its pager is there.
    world.reach(&early, State::Running).await;
    assert_eq!(world.exec(&early, &["counter"]).await, "2");
    let incapable = world.get("/capabilities").await.ok();
    let wanted = json!({
        "backends": ["file"],
        "uffd_unavailable_reason": "the kernel was built without it",
    });
    assert_eq!(incapable["memory"], wanted);
    let fork = format!("/instances/{template}/fork");
    let words = world
        .post(&fork, uffd("refused"))
        .await
        .refused(400, "invalid_request");
    assert!(words.contains("the kernel was built without it"), "{words}");
    assert!(words.contains("auto or file"), "{words}");
    let patch = json!({ "memory_backend": "uffd" }).to_string();
    let path = format!("/instances/{template}");
    let words = world
        .call("PATCH", &path, &patch)
        .await
        .refused(400, "invalid_request");
    assert!(words.contains("the kernel was built without it"), "{words}");
    // The server's wish is for those that it fits, and nothing makes auto choose it.
    let plain = world.fork(&template, json!({ "name": "plain" })).await;
    world.act(&plain, "standby").await;
    world.act(&plain, "promote-template").await;
    for wish in [None, Some("auto")] {
        let mut body = json!({ "name": format!("of-layers-{}", wish.unwrap_or("none")) });
        if let Some(wish) = wish {
            body["memory_backend"] = json!(wish);
        }
        let shoot = world.fork(&plain, body).await;
        assert_eq!(world.show(&shoot).await["memory_backend"], "file");
        assert_eq!(world.exec(&shoot, &["counter"]).await, "2");
    }
}

#[tokio::test]
async fn an_image_of_layers_is_served_by_a_pager() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, json!({ "name": "fork" })).await;
    world.act(&fork, "standby").await;
    world.act(&fork, "promote-template").await;
    let shoot = world.fork(&fork, json!({ "name": "shoot" })).await;
    assert_eq!(world.show(&shoot).await["memory_backend"], "uffd");
    assert_eq!(world.exec(&shoot, &["counter"]).await, "2");
    // Its own memory image is read from files when it wakes: it is alone on it.
    world.act(&shoot, "standby").await;
    let woken = world.act(&shoot, "restore").await;
    assert_eq!(woken["memory_backend"], "file");
    assert_eq!(world.exec(&shoot, &["counter"]).await, "3");
    until_nobody_is_served(&world).await;
}

#[tokio::test]
async fn a_machine_whose_memory_cannot_be_served_ends_and_says_why() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    for killed_first in [false, true] {
        let name = format!("fork-{killed_first}");
        let fork = world.fork(&template, uffd(&name)).await;
        let sibling = world
            .fork(&template, uffd(&format!("{name}-sibling")))
            .await;
        // Its end may be seen before its pager has said why.
        world.pagers.be_slow(true);
        if killed_first {
            world.machines.kill(&fork).await;
        }
        world.pagers.fail(&fork, "chunk 7 is damaged");
        if !killed_first {
            world.machines.kill(&fork).await;
        }
        world.pagers.be_slow(false);
        world.reach(&fork, State::Stopped).await;
        let shown = world.show(&fork).await;
        let message = shown["exit_message"].as_str().unwrap();
        assert!(message.contains("chunk 7 is damaged"), "{message}");
        let logs = format!("/instances/{fork}/logs?source=coppice");
        let logs = world.get(&logs).await.text;
        assert!(logs.contains("chunk 7 is damaged"), "{logs}");
        assert_eq!(world.exec(&sibling, &["counter"]).await, "2");
    }
}

#[tokio::test]
async fn a_fork_that_a_pager_refuses_leaves_nothing() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    world.pagers.refuse_next("this image is not for you");
    let answer = world
        .post(&format!("/instances/{template}/fork"), uffd("fork"))
        .await;
    assert!(
        answer
            .refused(500, "internal_error")
            .contains("not for you"),
        "{answer:?}"
    );
    assert_eq!(world.show(&template).await["fork_count"], 0);
    assert_eq!(world.machines.alive().await.len(), 0);
    until_nobody_is_served(&world).await;
    // A VMM that fails calls the pager off at once.
    world
        .host
        .fail_next(hypervisor::fake::Operation::Restore, "no room");
    let answer = world
        .post(&format!("/instances/{template}/fork"), uffd("fork"))
        .await;
    assert!(answer.message().contains("no room"), "{answer:?}");
    until_nobody_is_served(&world).await;
    world.fork(&template, uffd("fork")).await;
}

#[tokio::test]
async fn machines_and_their_pagers_are_found_again() {
    let mut world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    let pid = world.machines.pid(&fork).await;
    world.restart().await;
    world.reach(&fork, State::Running).await;
    assert_eq!(world.machines.pid(&fork).await, pid);
    assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    assert_eq!(stats(&world, &fork).await["pager"]["faults"], 1);
    world.pagers.lose_pager_of(&fork);
    let path = format!("/instances/{fork}/logs?source=coppice");
    let logs = world.get(&path).await.text;
    assert!(logs.contains("another one took over within 7 ms"), "{logs}");
    assert_eq!(stats(&world, &fork).await["pager"]["takeovers"], 1);
    world.delete(&fork).await;
    until_nobody_is_served(&world).await;
}

/// A daemon may die while it makes links to an image: they must not keep its bytes for ever.
#[tokio::test]
async fn a_place_that_was_half_made_is_removed_by_the_next_start() {
    let mut world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    world.kill_daemon().await;
    let half = world.layout.pagers().join("abcdefghijklmnopqrstuvwx");
    std::fs::create_dir_all(half.join("image")).unwrap();
    std::fs::write(half.join("image/ram-0.pages"), "bytes").unwrap();
    world.start_daemon().await;
    assert!(!half.exists());
    world.reach(&fork, State::Running).await;
    assert_eq!(world.pagers.served(), [fork]);
}

#[tokio::test]
async fn a_daemon_of_another_build_lets_old_pagers_drain() {
    let mut world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let old = world.fork(&template, uffd("old")).await;
    let pid = world.machines.pid(&old).await;
    world.kill_daemon().await;
    world.pagers = world.pagers.of_build("next");
    world.start_daemon().await;
    world.reach(&old, State::Running).await;
    assert_eq!(world.machines.pid(&old).await, pid);
    let new = world.fork(&template, uffd("new")).await;
    assert!(world.pagers.pager_of(&new) > world.pagers.pager_of(&old));
    assert_eq!(
        world.pagers.images(),
        1,
        "two builds, and still one image in use"
    );
    for fork in [&old, &new] {
        assert_eq!(world.exec(fork, &["counter"]).await, "2");
        assert_eq!(stats(&world, fork).await["pager"]["faults"], 1);
    }
    world.pagers.lose_pager_of(&old);
    assert_eq!(world.pagers.pager_of(&old), world.pagers.pager_of(&new));
    for (fork, losses) in [(&old, 1), (&new, 0)] {
        let path = format!("/instances/{fork}/logs?source=coppice");
        let logs = world.get(&path).await.text;
        let told = logs.matches("another one took over").count();
        assert_eq!(told, losses, "of its own pager and no other: {logs}");
        assert_eq!(stats(&world, fork).await["pager"]["takeovers"], losses);
        assert_eq!(world.state(fork).await, "Running");
    }
    // The same build again starts no other pager.
    world.restart().await;
    let late = world.fork(&template, uffd("late")).await;
    assert_eq!(world.pagers.pager_of(&late), world.pagers.pager_of(&new));
    for fork in [old, new, late] {
        world.delete(&fork).await;
    }
    until_nobody_is_served(&world).await;
}

#[tokio::test]
async fn a_machine_without_its_pager_does_not_go_on_after_a_restart() {
    let mut world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    let damaged = world.fork(&template, uffd("damaged")).await;
    let whole = world.fork(&template, uffd("whole")).await;
    let pid = world.machines.pid(&whole).await.unwrap();
    world.kill_daemon().await;
    world.pagers.complete(pid, &whole);
    world.pagers.fail(&damaged, "chunk 1 is damaged");
    world.start_daemon().await;
    world.reach(&damaged, State::Stopped).await;
    let message = world.show(&damaged).await["exit_message"].clone();
    assert!(
        message.as_str().unwrap().contains("chunk 1 is damaged"),
        "{message}"
    );
    assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    world.kill_daemon().await;
    world.pagers.lose_all();
    world.start_daemon().await;
    world.reach(&fork, State::Stopped).await;
    let message = world.show(&fork).await["exit_message"].clone();
    assert!(
        message.as_str().unwrap().contains("its pager is gone"),
        "{message}"
    );
    assert_eq!(
        world.state(&whole).await,
        "Running",
        "all its memory is there"
    );
    assert_eq!(world.exec(&whole, &["counter"]).await, "2");
    assert_eq!(world.machines.alive().await.len(), 1);
}

/// Forgotten, it would write to a disk that the next start gives to another VMM.
#[tokio::test]
async fn a_machine_without_its_pager_that_cannot_be_killed_is_not_forgotten() {
    let mut world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    world.kill_daemon().await;
    world.pagers.lose_all();
    world
        .host
        .fail_next(hypervisor::fake::Operation::Kill, "it hangs");
    world.start_daemon().await;
    world.reach(&fork, State::Unknown).await;
    let shown = world.show(&fork).await;
    for field in ["state_error", "exit_message"] {
        let words = shown[field].as_str().unwrap();
        assert!(words.contains("its pager is gone"), "{field}: {words}");
    }
    assert_eq!(world.machines.alive().await.len(), 1);
    // Whatever is asked next looks for it again, and ends it.
    world.act(&fork, "start").await;
    world.reach(&fork, State::Running).await;
    assert_eq!(world.machines.alive().await.len(), 1);
    assert_eq!(world.exec(&fork, &["counter"]).await, "1", "it has booted");
}

#[tokio::test]
async fn a_fork_that_lives_for_long_is_completed() {
    let policy = PagerPolicy {
        graduate_after: Some(Duration::ZERO),
        ..PAGING
    };
    let world = World::with_pagers(policy).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    let whole = async || stats(&world, &fork).await["pager"]["complete"].clone();
    until(whole, |complete| *complete == json!(true)).await;
    until_nobody_is_served(&world).await;
    let found = stats(&world, &fork).await;
    assert_eq!(
        found["pager"]["faults"], 1,
        "the last figures stay: {found}"
    );
    assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    assert_eq!(world.state(&fork).await, "Running");
}

#[tokio::test]
async fn what_the_first_fork_touches_is_there_for_the_next() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let hot = async || stats(&world, &template).await["template"].clone();
    assert_eq!(hot().await["hot_recordings"], 0);
    let first = world.fork(&template, uffd("first")).await;
    assert_eq!(world.pagers.order(&first), (None, true));
    assert_eq!(stats(&world, &first).await["pager"]["recording"], true);
    run_a_command(&world, &first).await;
    until(hot, |hot| hot["hot_recordings"] == 1).await;
    let second = world.fork(&template, uffd("second")).await;
    let (pages, record) = world.pagers.order(&second);
    assert_eq!((pages.unwrap().ready, record), (vec![TOUCHED], false));
    let found = stats(&world, &second).await;
    assert_eq!(found["pager"]["hot_bytes"], TOUCHED.1 * 4096);

    let patch = async |prefetch: &str| {
        let body = json!({ "prefetch": prefetch }).to_string();
        world
            .call("PATCH", &format!("/instances/{template}"), &body)
            .await
            .ok();
    };
    patch("off").await;
    let none = world.fork(&template, uffd("none")).await;
    assert_eq!(world.pagers.order(&none), (None, false));
    assert_eq!(
        hot().await["hot_recordings"],
        1,
        "kept for when it is on again"
    );
    patch("record").await;
    assert_eq!(hot().await["hot_recordings"], 0);
    let anew = world.fork(&template, uffd("anew")).await;
    assert_eq!(world.pagers.order(&anew), (None, true));
    run_a_command(&world, &anew).await;
    until(hot, |hot| hot["hot_recordings"] == 1).await;
    for fork in [first, second, none, anew] {
        world.delete(&fork).await;
    }
    let image = world.record(&template).standby.unwrap();
    let memory = world.layout.instance(&template.parse().unwrap()).memory();
    let hint = memory.join(format!("{image}.hot_pages"));
    assert!(hint.exists());
    world.act(&template, "demote-template").await;
    assert!(!hint.exists(), "hot pages are a template's");
}

#[tokio::test]
async fn forks_that_were_prepared_have_the_templates_backend() {
    let mut world = World::with_pagers(PAGING).await;
    world.kill_daemon().await;
    world.warm.forks = 1;
    world.start_daemon().await;
    let template = template(&world).await;
    let patch = json!({ "memory_backend": "uffd" }).to_string();
    world
        .call("PATCH", &format!("/instances/{template}"), &patch)
        .await
        .ok();
    world.fork(&template, json!({ "name": "first" })).await;
    let warm = async || stats(&world, &template).await["template"]["warm_forks"].clone();
    until(warm, |warm| *warm == json!(1)).await;
    let served = world.pagers.served();
    assert_eq!(served.len(), 2);
    let mapped = world
        .fork(
            &template,
            json!({ "name": "mapped", "memory_backend": "file" }),
        )
        .await;
    assert!(!served.contains(&mapped), "one on a pager does not fit");
    until(warm, |warm| *warm == json!(1)).await;
    let taken = world.fork(&template, json!({ "name": "taken" })).await;
    assert!(served.contains(&taken));
    assert_eq!(world.show(&taken).await["memory_backend"], "uffd");
    assert_eq!(world.exec(&taken, &["counter"]).await, "2");
}

/// What it has touched before is not known any more, so nothing is put in; nor is it waited for.
#[tokio::test]
async fn a_recording_ends_with_its_pager() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    let recording = async || stats(&world, &fork).await["pager"]["recording"].clone();
    assert_eq!(recording().await, json!(true));
    world.pagers.lose_pager_of(&fork);
    run_a_command(&world, &fork).await;
    until(recording, |recording| *recording == json!(false)).await;
    let template = stats(&world, &template).await["template"].clone();
    assert_eq!(template["hot_recordings"], 0);
}

#[tokio::test]
async fn metrics_count_what_pagers_did() {
    let world = World::with_pagers(PAGING).await;
    let template = template(&world).await;
    let fork = world.fork(&template, uffd("fork")).await;
    assert_eq!(world.exec(&fork, &["counter"]).await, "2");
    let pager = stats(&world, &fork).await["pager"].clone();
    let text = world.get("/metrics").await.text;
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {text}"))
            .trim()
            .parse()
            .unwrap()
    };
    assert_eq!(value("coppice_pager_serves{what=\"machines\"}"), 1.0);
    for (name, field) in [
        ("coppice_pager_faults_total", "faults"),
        ("coppice_pager_bytes_total{how=\"copied\"}", "copied_bytes"),
    ] {
        assert_eq!(value(name), pager[field].as_f64().unwrap(), "{field}");
    }
    let answered = pager["faults"].as_f64().unwrap();
    assert!(answered > 0.0 && pager["copied_bytes"] != 0);
    assert_eq!(value("coppice_pager_fault_seconds_count"), answered);
    assert_eq!(
        value("coppice_pager_fault_seconds_bucket{le=\"+Inf\"}"),
        answered
    );
}
