//! The command line against a real daemon.

use std::fs;

use e2e::{COUNTER, Daemon};

#[tokio::test]
async fn cli_runs_executes_and_copies() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let run = daemon
        .cli(&[
            "run",
            "busybox",
            "--name",
            "a",
            "--memory",
            "128MB",
            "--cpus",
            "1",
            "--overlay-size",
            "64MB",
            "-e",
            "WHO=me",
            "-l",
            "team=blue",
            "--",
            "/bin/sh",
            "-c",
            COUNTER,
        ])
        .await;
    assert_eq!(run.ok(), "a");
    daemon.wait_for_counter("a").await;

    let exec = daemon
        .cli(&[
            "exec",
            "a",
            "--",
            "/bin/sh",
            "-c",
            "echo $WHO; echo err >&2; exit 5",
        ])
        .await;
    assert_eq!(
        (exec.code, exec.stdout.as_str(), exec.stderr.as_str()),
        (5, "me\n", "err\n")
    );
    let missing = daemon.cli(&["exec", "a", "--", "/no/such"]).await;
    assert_eq!(missing.code, 127, "{missing:?}");
    let nobody = daemon.cli(&["exec", "nobody", "--", "true"]).await;
    assert_eq!(nobody.code, 125, "{nobody:?}");
    assert_eq!(daemon.cli(&["inspect", "nobody"]).await.code, 1);
    assert_eq!(daemon.cli(&["inspect"]).await.code, 2);
    copies(&daemon).await;
    assert_eq!(daemon.cli(&["rm", "-f", "a"]).await.ok(), "a");
    assert_eq!(daemon.names().await, Vec::<String>::new());
}

/// A tree into the instance `a` and out of it again.
async fn copies(daemon: &Daemon) {
    let local = tempdir();
    fs::create_dir_all(local.path().join("tree/empty")).expect("a directory");
    fs::write(local.path().join("tree/file"), "content").expect("a file");
    std::os::unix::fs::symlink("file", local.path().join("tree/link")).expect("a link");
    let tree = local.path().join("tree").display().to_string();
    assert_eq!(daemon.cli(&["cp", &tree, "a:/srv"]).await.code, 0);
    assert_eq!(
        daemon.sh("a", "cat /srv/tree/file; ls /srv/tree").await,
        "contentempty\nfile\nlink"
    );
    let back = local.path().join("back").display().to_string();
    assert_eq!(daemon.cli(&["cp", "a:/srv/tree", &back]).await.code, 0);
    assert_eq!(
        fs::read_to_string(local.path().join("back/file")).expect("it came back"),
        "content"
    );
    assert!(local.path().join("back/empty").is_dir());
}

#[tokio::test]
async fn cli_sleeps_forks_and_removes() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    assert_eq!(daemon.count("a").await, 1);
    daemon.cli(&["standby", "a"]).await.ok();
    let asleep = daemon.cli(&["exec", "a", "--", "true"]).await;
    assert_eq!(asleep.code, 125);
    assert!(asleep.stderr.contains("Standby"), "{asleep:?}");

    let forked = daemon
        .cli(&["fork", "a", "f", "--count", "3", "--share-memory"])
        .await;
    assert_eq!(forked.ok(), "f-1\nf-2\nf-3");
    for name in ["f-1", "f-2", "f-3"] {
        assert_eq!(daemon.count(name).await, 2);
    }
    let tree = daemon.cli(&["tree"]).await;
    let lines: Vec<&str> = tree.ok().lines().collect();
    assert!(
        lines[0].starts_with("a Template") && lines[0].contains("3 forks"),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("f-1 Running") && lines[3].contains("f-3 Running"),
        "{lines:?}"
    );

    let ps = daemon.cli(&["ps", "--memory"]).await;
    assert!(
        ps.ok().contains("f-2") && ps.stdout.contains("SHARED"),
        "{ps:?}"
    );
    let all = daemon.cli(&["ps", "-a", "--json"]).await.json();
    assert_eq!(all.as_array().map(Vec::len), Some(4), "{all}");
    assert_eq!(
        daemon
            .cli(&["ps", "-q", "--fork-of", "a"])
            .await
            .ok()
            .lines()
            .count(),
        3
    );

    removes(&daemon).await;
}

/// The forks of the template `a`, then the template.
async fn removes(daemon: &Daemon) {
    let locked = daemon.cli(&["rm", "-f", "a"]).await;
    assert_eq!(locked.code, 1);
    assert!(
        locked.stderr.contains("f-1") || locked.stderr.contains("3 live forks"),
        "{locked:?}"
    );
    assert_eq!(daemon.cli(&["restore", "a"]).await.code, 1);
    daemon.cli(&["rm", "-f", "f-1", "f-2", "f-3"]).await.ok();
    daemon.cli(&["demote", "a"]).await.ok();
    daemon.cli(&["restore", "a"]).await.ok();
    assert_eq!(daemon.count("a").await, 2);
    let log = daemon.cli(&["logs", "a", "--source", "coppice"]).await;
    assert!(log.ok().contains("restore"), "{log:?}");
    daemon.cli(&["rm", "-f", "a"]).await.ok();
    daemon.expect_tidy().await;
    assert_eq!(daemon.names().await, Vec::<String>::new());
}

#[tokio::test]
async fn cli_fork_takes_memory_from_a_template_by_name() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let template = daemon.template("a").await;
    daemon
        .fork(
            "a",
            serde_json::json!({"name": "b", "share_memory": false, "target_state": "Stopped"}),
        )
        .await
        .expect(201);
    let forked = daemon
        .cli(&[
            "fork",
            "b",
            "f",
            "--template",
            "a",
            "--target-state",
            "running",
        ])
        .await;
    assert_eq!(forked.ok(), "f");
    assert_eq!(daemon.show("f").await["fork_of_template"], template);
    assert_eq!(daemon.count("f").await, 2);
    let relabelled = daemon
        .cli(&[
            "fork",
            "a",
            "g",
            "-l",
            "only=this",
            "--target-state",
            "stopped",
        ])
        .await;
    assert_eq!(relabelled.ok(), "g");
    assert_eq!(
        daemon.show("g").await["tags"],
        serde_json::json!({"only": "this"})
    );
}

#[tokio::test]
async fn cli_reads_tokens_and_images_over_tcp() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    let over_tcp = async |token: Option<String>| {
        let mut command = daemon.coppice();
        command
            .args(["image", "ls", "--json"])
            .env("COPPICE_HOST", daemon.url());
        if let Some(token) = token {
            command.env("COPPICE_TOKEN", token);
        }
        command.output().expect("it runs")
    };
    assert!(!over_tcp(None).await.status.success());
    let output = over_tcp(Some(daemon.token(Some("image:read")))).await;
    assert!(output.status.success(), "{output:?}");
    let images: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(images.as_array().map(Vec::len), Some(1), "{images}");
}

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}
