//! Forks that are prepared ahead, on real guests: they stand still until they are somebody.

use e2e::{Daemon, until};

const WARM: &[(&str, &str)] = &[("COPPICE_WARM_FORKS", "1")];

async fn until_warm(daemon: &Daemon, template: &str) {
    let path = format!("/instances/{template}/stats");
    until("a warm fork", async || {
        let stats = daemon.get(&path).await.expect(200);
        (stats["template"]["warm_forks"] == 1).then_some(())
    })
    .await;
}

/// The machine that is no instance.
async fn warm_machine(daemon: &Daemon) -> (String, i32) {
    let listed = daemon.list().await;
    let known: Vec<&str> = listed.iter().filter_map(|one| one["id"].as_str()).collect();
    let mut others = daemon.machines().into_iter().filter_map(|process| {
        let instance = process.instance?;
        (!known.contains(&instance.as_str())).then_some((instance, process.pid))
    });
    let found = others.next().expect("a machine that is no instance");
    assert_eq!(others.next(), None);
    found
}

#[tokio::test]
async fn a_warm_fork_is_a_machine_of_its_own_that_missed_nothing() {
    let Some(daemon) = Daemon::start_with(WARM).await else {
        return;
    };
    let template = daemon.template("template").await;
    let first = daemon.sprout(&template, "first").await;
    until_warm(&daemon, &template).await;
    let warm = warm_machine(&daemon).await;
    let second = daemon.sprout(&template, "second").await;
    assert_eq!(second, warm.0);
    let process = daemon
        .machines()
        .into_iter()
        .find(|process| process.instance.as_deref() == Some(second.as_str()));
    assert_eq!(process.map(|process| process.pid), Some(warm.1));
    // Programs go on from the template's moment, in each on its own.
    assert_eq!(daemon.count(&second).await, 2);
    assert_eq!(daemon.count(&first).await, 2);
    assert_eq!(daemon.count(&second).await, 3);
    let mut seen = Vec::new();
    for (id, name) in [(&first, "first"), (&second, "second")] {
        assert_eq!(daemon.sh(id, "hostname").await, name);
        let machine = daemon.sh(id, "cat /etc/machine-id").await;
        let random = daemon.sh(id, "head -c 16 /dev/urandom | hexdump").await;
        seen.push((machine, random));
        let clock: u64 = daemon.sh(id, "date +%s").await.parse().expect("seconds");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        assert!(now.as_secs().abs_diff(clock) <= 5, "{clock}");
    }
    assert_ne!(seen[0].0, seen[1].0);
    assert_ne!(seen[0].1, seen[1].1);
}

#[tokio::test]
async fn warm_forks_do_not_outlive_their_use() {
    let Some(mut daemon) = Daemon::start_with(WARM).await else {
        return;
    };
    let template = daemon.template("template").await;
    let first = daemon.sprout(&template, "first").await;
    until_warm(&daemon, &template).await;
    // A daemon that gets no chance to end them leaves that to the next one.
    daemon.restart().await;
    daemon.expect_tidy().await;
    assert_eq!(daemon.count(&first).await, 2);
    let second = daemon.sprout(&template, "second").await;
    assert_eq!(daemon.count(&second).await, 2);
    daemon.expect_tidy().await;
}
