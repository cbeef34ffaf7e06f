//! Memory images (§4): written once, owned by all who use them, refused when damaged.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use e2e::{Daemon, hashes, share};
use serde_json::json;

#[tokio::test]
async fn rule_4_1_a_templates_image_stays_the_same_while_forks_live_write_and_die() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let image = daemon.image(&id);
    let before = hashes(&image);
    assert!(before.len() >= 5, "{before:?}");

    let forks = daemon.sprouts("a", "f", 4).await;
    for fork in &forks {
        let line = "dd if=/dev/urandom of=/dev/shm/dirt bs=1M count=8 2>&1; \
                    dd if=/dev/urandom of=/srv/dirt bs=1M count=4 2>&1; sync";
        daemon.sh(fork, line).await;
    }
    daemon.act(&forks[0], "standby").await.expect(200);
    daemon.act(&forks[0], "restore").await.expect(200);
    daemon.act(&forks[1], "stop").await.expect(200);
    daemon.act(&forks[2], "standby").await.expect(200);
    daemon.fork(&forks[2], share("g")).await.expect(201);
    assert_eq!(hashes(&image), before, "while forks live");
    daemon.restart().await;
    for name in ["g", "f-1", "f-2", "f-3", "f-4"] {
        daemon.delete(name).await.expect(204);
    }
    assert_eq!(hashes(&image), before, "after they died");
    assert_eq!(daemon.image(&id), image);

    daemon.act("a", "demote-template").await.expect(200);
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 2);
    assert_eq!(
        daemon.sh("a", "ls /srv /dev/shm").await,
        "/dev/shm:\nanswer\nask\n\n/srv:"
    );
}

#[tokio::test]
async fn rule_4_1_each_standby_writes_a_new_image_that_nobody_can_write() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let first = daemon.image(&id);
    for entry in fs::read_dir(&first).expect("an image").flatten() {
        let mode = entry.metadata().expect("a file").permissions().mode();
        assert_eq!(
            mode & 0o222,
            0,
            "{} has mode {mode:o}",
            entry.path().display()
        );
    }
    daemon.act("a", "restore").await.expect(200);
    daemon.act("a", "standby").await.expect(200);
    assert_ne!(daemon.image(&id), first);
    assert!(!first.exists(), "the one before is of no use to anybody");
}

#[tokio::test]
async fn rule_4_2_a_fork_owns_its_bytes() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let fork = daemon.sprout("a", "keeper").await;
    assert_eq!(daemon.count(&fork).await, 2);
    let asleep = json!({"name": "sleeper", "target_state": "Standby"});
    let sleeper = daemon.fork("a", asleep).await.expect(201);
    let sleeper = sleeper["id"].as_str().expect("an id").to_owned();
    let pages = pages_of(&daemon.image(&id));
    let links = fs::metadata(&pages).expect("the pages").nlink();
    assert!(links >= 3, "{links} links to the pages of three owners");

    // The lock forbids this; the bytes must not need the lock.
    fs::remove_dir_all(daemon.directory(&id)).expect("the template's directory");
    assert_eq!(daemon.count(&fork).await, 3);
    daemon.act(&sleeper, "restore").await.expect(200);
    assert_eq!(daemon.count(&sleeper).await, 2);
    daemon.act(&fork, "standby").await.expect(200);
    daemon.act(&fork, "restore").await.expect(200);
    assert_eq!(daemon.count(&fork).await, 4);
}

#[tokio::test]
async fn rule_4_3_an_image_goes_with_the_last_that_uses_it() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
    let template = pages_of(&daemon.image(&id));
    let copied = json!({"name": "copied", "share_memory": false, "target_state": "Standby"});
    let copied = daemon.fork("a", copied).await.expect(201);
    let copied = copied["id"].as_str().expect("an id").to_owned();
    let own = pages_of(&daemon.image(&copied));
    assert_eq!(inode(&own), inode(&template), "linked, not copied");
    daemon.delete("a").await.expect(204);
    assert_eq!(fs::metadata(&own).expect("the pages").nlink(), 1);
    daemon.act("copied", "restore").await.expect(200);
    assert_eq!(daemon.count("copied").await, 2);
    daemon.act("copied", "stop").await.expect(200);
    assert_eq!(daemon.images(&copied), Vec::<PathBuf>::new());
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_4_3_what_no_record_names_is_swept_at_start() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let image = daemon.image(&id);
    daemon.kill();
    let orphan = daemon.directory("orphan00000000000000000x");
    fs::create_dir_all(orphan.join("memory/half")).expect("a leftover");
    fs::write(orphan.join("memory/half/state"), [1; 8192]).expect("a leftover");
    let draft = daemon
        .directory(&id)
        .join("memory/draft0000000000000000000");
    fs::create_dir_all(&draft).expect("a leftover");
    fs::write(draft.join("state"), [1; 8192]).expect("a leftover");
    daemon.revive().await;
    assert!(!orphan.exists() && !draft.exists());
    assert!(daemon.log().contains("removed what a crash had left"));
    assert_eq!(daemon.image(&id), image);
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 1);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn rule_4_5_a_fork_in_standby_stores_what_differs_and_needs_no_file_of_others() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.template("a").await;
    let fork = daemon.sprout("a", "f").await;
    daemon
        .sh("f", "dd if=/dev/urandom of=/dev/shm/dirt bs=1M count=8 2>&1; sha256sum /dev/shm/dirt > /dev/shm/sum")
        .await;
    daemon.act("f", "standby").await.expect(200);
    let own: u64 = fs::read_dir(daemon.image(&fork))
        .expect("an image")
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(|meta| meta.nlink() == 1)
        .map(|meta| meta.blocks() * 512)
        .sum();
    assert!(
        (8 << 20..24 << 20).contains(&own),
        "8 MiB were changed and {own} bytes are stored"
    );
    // A copy has no parent, so the template may go.
    daemon.fork("f", json!({"name": "g"})).await.expect(201);
    daemon.delete("f").await.expect(204);
    daemon.delete("a").await.expect(204);
    daemon.act("g", "restore").await.expect(200);
    daemon.sh("g", "sha256sum -c /dev/shm/sum").await;
    assert_eq!(daemon.count("g").await, 2);
}

/// The kinds of file that an image is made of, by the beginning and the end of their names.
const KINDS: [(&str, &str); 6] = [
    ("ram-", ".pages"),
    ("ram-", ".idx"),
    ("state", ""),
    ("disk-0", ""),
    ("disk-1", ""),
    ("manifest", ".json"),
];

#[tokio::test]
async fn rule_4_6_a_damaged_image_is_refused_by_name_and_never_run() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    let image = daemon.image(&id);
    for (begin, end) in KINDS {
        let path = file_of(&image, begin, end);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a name");
        let undo = flip_a_byte(&path);
        // What was verified once is not read again, so the daemon that looks must not be the one that wrote.
        daemon.restart().await;
        for action in ["restore", "promote-template"] {
            // Promoting reads the memory alone; the rest is read when a fork is made.
            if action == "promote-template" && !(begin == "ram-" || begin == "manifest") {
                continue;
            }
            let answer = daemon.act("a", action).await;
            assert_eq!(
                answer.status, 409,
                "{action} with a damaged {name}: {answer:?}"
            );
            let said = answer.message();
            assert!(said.contains(name), "{said} names {name}");
            assert_eq!(daemon.machines(), [], "it was run");
        }
        undo();
    }
    daemon.restart().await;
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 1);
}

#[tokio::test]
async fn rule_4_6_an_image_of_another_machine_is_refused_by_the_field_and_kept() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    daemon.act("a", "standby").await.expect(200);
    daemon.restart_with(&[("COPPICE_MACHINE", "q35")]).await;
    for (action, body) in [
        ("restore", json!({})),
        ("fork", json!({"name": "f", "target_state": "Running"})),
        ("fork", share("f")),
    ] {
        let answer = daemon.post(&format!("/instances/a/{action}"), body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (409, "image_mismatch"),
            "{answer:?}"
        );
        assert!(answer.message().contains("vmm.machine"), "{answer:?}");
        assert_eq!(daemon.show("a").await["state"], "Standby", "{action}");
        assert_eq!(daemon.names().await, ["a"], "{action} left something");
    }
    // On the machine that it was taken from it still wakes.
    daemon.restart().await;
    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 1);
}

#[tokio::test]
async fn rule_4_6_a_fork_of_a_damaged_template_is_refused_and_leaves_nothing() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let id = daemon.template("a").await;
    let image = daemon.image(&id);
    for (begin, end) in [KINDS[0], KINDS[2], KINDS[4]] {
        let path = file_of(&image, begin, end);
        let undo = flip_a_byte(&path);
        daemon.restart().await;
        for request in [
            share("f"),
            json!({"name": "f", "share_memory": false, "count": 2}),
        ] {
            let answer = daemon.fork("a", request).await;
            assert_eq!(answer.status, 409, "{} damaged: {answer:?}", path.display());
        }
        assert_eq!(daemon.names().await, ["a"]);
        daemon.expect_tidy().await;
        undo();
    }
    daemon.restart().await;
    daemon.sprout("a", "f").await;
    assert_eq!(daemon.count("f").await, 2);
}

/// Changes one byte in the middle of what the file holds; gives how to change it back.
fn flip_a_byte(path: &Path) -> impl FnOnce() + use<> {
    let path = path.to_owned();
    let bytes = fs::read(&path).expect("a file of an image");
    // In a sparse disk the middle may be a hole, which damage does not hit.
    let middle = bytes.len() / 2;
    let at = (middle..bytes.len())
        .chain(0..middle)
        .find(|at| bytes[*at] != 0)
        .expect("some data");
    let put = move |byte: u8| {
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("root writes");
        file.write_all_at(&[byte], at as u64).expect("written");
    };
    put(bytes[at] ^ 0x40);
    move || put(bytes[at])
}

fn file_of(image: &Path, begin: &str, end: &str) -> PathBuf {
    fs::read_dir(image)
        .expect("an image")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.starts_with(begin) && name.ends_with(end)
        })
        .unwrap_or_else(|| panic!("no {begin}*{end} in {}", image.display()))
}

fn pages_of(image: &Path) -> PathBuf {
    file_of(image, "ram-", ".pages")
}
