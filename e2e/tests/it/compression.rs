//! Memory images that are compressed, of real guests.

use e2e::Daemon;

#[tokio::test]
async fn a_guest_sleeps_compressed_and_its_forks_have_its_memory() {
    let Some(daemon) = Daemon::start().await else {
        return;
    };
    daemon.boot("a").await;
    assert_eq!(daemon.count("a").await, 1);
    let fill = "dd if=/dev/urandom of=/dev/shm/noise bs=64k count=32 2>&1; \
        cat /bin/busybox /bin/busybox > /dev/shm/code; \
        sha256sum /dev/shm/noise /dev/shm/code > /srv/sums; sync";
    daemon.sh("a", fill).await;
    let check = "sha256sum -c /srv/sums > /dev/null";

    let asleep = daemon.cli(&["--json", "standby", "--compression-enabled", "a"]);
    let asleep = asleep.await.json();
    let image = &asleep["memory_image"];
    let bytes = |name: &str| image[name].as_u64().expect("a count");
    assert_eq!((&image["encoding"], bytes("layers")), (&"zstd".into(), 1));
    assert!(bytes("memory_bytes") > 8 << 20, "{image}");
    assert!(
        bytes("stored_bytes") < bytes("memory_bytes") * 3 / 4,
        "{image}"
    );
    let on_disk: u64 = std::fs::read_dir(daemon.image(asleep["id"].as_str().expect("an id")))
        .expect("its image")
        .map(|file| file.expect("a file"))
        .filter(|file| file.file_name().to_string_lossy().ends_with(".pages"))
        .map(|file| file.metadata().expect("its size").len())
        .sum();
    assert_eq!(
        on_disk,
        bytes("stored_bytes"),
        "what is said is what it takes"
    );

    daemon.act("a", "restore").await.expect(200);
    assert_eq!(daemon.count("a").await, 2);
    daemon.sh("a", check).await;
    // Plain on top of compressed.
    let mixed = daemon.act("a", "standby").await.expect(200);
    assert_eq!(mixed["memory_image"]["encoding"], "mixed");
    daemon.act("a", "promote-template").await.expect(200);
    for name in ["f-1", "f-2"] {
        daemon.sprout("a", name).await;
        assert_eq!(daemon.count(name).await, 3);
        daemon.sh(name, check).await;
    }
    let memory = daemon.cli(&["ps", "--all", "--memory"]).await;
    assert!(memory.ok().contains("ASLEEP IN"), "{}", memory.stdout);
    daemon.expect_tidy().await;
}
