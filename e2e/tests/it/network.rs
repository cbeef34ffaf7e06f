//! Machines on the network: reached from the host, from each other and by name; nothing of one reaches another.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::{Daemon, plain_create, share, until};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const NETWORK: &[(&str, &str)] =
    &[("COPPICE_NETWORK", "auto"), ("COPPICE_NETWORK_SLOTS", "4")];

/// Slots that are kept prepared.
const SLOTS: usize = 4;

/// Port of the web server in guests.
pub(crate) const WEB: u16 = 8080;

/// What its page is made of: a file in the guest's memory.
const PAGE: &str = "/dev/shm/www/index.html";

pub(crate) async fn start() -> Option<Daemon> {
    let daemon = Daemon::start_with(NETWORK).await?;
    let capabilities = daemon.get("/capabilities").await.expect(200);
    if capabilities["network"]["model"] == "none" {
        println!(
            "skipped: this host gives instances no network: {}",
            daemon.log()
        );
        return None;
    }
    Some(daemon)
}

/// Boots a machine whose program is a web server as well.
pub(crate) async fn web(daemon: &Daemon, name: &str, network: Value, tags: Value) -> String {
    let mut request = plain_create(name);
    request["network"] = network;
    request["tags"] = tags;
    let id = daemon.boot_as(request).await;
    let line = format!(
        "mkdir -p /dev/shm/www && echo {name} > {PAGE} && busybox httpd -p {WEB} -h /dev/shm/www"
    );
    daemon.sh(&id, &line).await;
    id
}

pub(crate) async fn address(daemon: &Daemon, id: &str) -> String {
    let instance = daemon.show(id).await;
    instance["network"]["ip"]
        .as_str()
        .expect("an address")
        .to_owned()
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(60))
        .build()
        .expect("a client")
}

pub(crate) async fn page(url: &str, host: Option<&str>) -> Result<(u16, String), reqwest::Error> {
    let mut request = client().get(url);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let response = request.send().await?;
    Ok((
        response.status().as_u16(),
        response.text().await?.trim().to_owned(),
    ))
}

pub(crate) async fn served(url: &str) -> String {
    page(url, None).await.expect("an answer").1
}

/// What a guest learns of a name. The static busybox has a resolver of its own for this alone.
async fn resolved(daemon: &Daemon, id: &str, name: &str) -> Option<String> {
    let asked = daemon.exec(id, &["busybox", "nslookup", name]).await;
    // The server's own address comes first.
    let answers = asked.stdout.split_once("\n\n")?.1;
    let line = answers.lines().rfind(|line| line.starts_with("Address"))?;
    Some(line.split_whitespace().last()?.to_owned())
}

/// A port of the host that nobody uses now.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// `ingress` is a port on which `{instance}.test` is answered for.
async fn refuses_what_cannot_be(daemon: &Daemon, ingress: u16) {
    let somebody = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let busy = somebody.local_addr().expect("an address").port();
    for (rule, status, code) in [
        (
            json!({ "match": { "hostname": "{name}.test", "port": ingress }, "target": { "instance": "{name}", "port": WEB } }),
            409,
            "hostname_in_use",
        ),
        (
            json!({ "match": { "hostname": "b.test", "port": busy }, "target": { "instance": "web", "port": WEB } }),
            409,
            "port_in_use",
        ),
        (
            json!({ "match": { "hostname": "c.test", "port": ingress }, "target": { "instance": "nobody", "port": WEB } }),
            400,
            "instance_not_found",
        ),
        (
            json!({ "match": { "hostname": "d.test", "port": free_port() }, "target": { "instance": "web", "port": WEB }, "tls": true }),
            400,
            "domain_not_allowed",
        ),
        (
            json!({ "match": { "hostname": "e.test", "port": ingress }, "target": { "instance": "web", "port": WEB }, "redirect_http": true }),
            400,
            "config_validation_failed",
        ),
    ] {
        let request = json!({ "name": "refused", "rules": [rule] });
        daemon
            .post("/ingresses", request)
            .await
            .refused(status, code);
    }
}

async fn finds_targets_by_prefix(daemon: &Daemon, ingress: u16, id: &str) {
    let url = format!("http://127.0.0.1:{ingress}/");
    // A target is found as everything is: by the beginning of its id too.
    let request = json!({ "name": "one", "rules": [{
        "match": { "hostname": "one.test", "port": ingress },
        "target": { "instance": &id[..12], "port": WEB },
    }] });
    daemon.post("/ingresses", request).await.expect(201);
    assert_eq!(
        page(&url, Some("one.test")).await.expect("an answer"),
        (200, "web".to_owned())
    );
    daemon
        .call(reqwest::Method::DELETE, "/ingresses/one", None)
        .await
        .expect(204);
}

#[tokio::test]
async fn a_web_server_is_reached_by_address_published_port_and_host_name() {
    let Some(daemon) = start().await else { return };
    let (published, ingress) = (free_port(), free_port());
    let publish = json!({ "publish": [{ "host_port": published, "port": WEB }] });
    let id = web(&daemon, "web", publish, json!({})).await;
    let ip = address(&daemon, &id).await;
    assert_eq!(served(&format!("http://{ip}:{WEB}/")).await, "web");
    assert_eq!(
        served(&format!("http://127.0.0.1:{published}/")).await,
        "web"
    );

    let request = json!({ "name": "all", "rules": [{
        "match": { "hostname": "{instance}.test", "port": ingress },
        "target": { "instance": "{instance}", "port": WEB },
        "wake": true,
    }] });
    daemon.post("/ingresses", request.clone()).await.expect(201);
    daemon
        .post("/ingresses", request)
        .await
        .refused(409, "already_exists");
    let url = format!("http://127.0.0.1:{ingress}/");
    assert_eq!(
        page(&url, Some("web.test")).await.expect("an answer"),
        (200, "web".to_owned())
    );
    assert_eq!(
        page(&url, Some("elsewhere")).await.expect("an answer").0,
        404
    );
    refuses_what_cannot_be(&daemon, ingress).await;

    finds_targets_by_prefix(&daemon, ingress, &id).await;

    // The proxy goes on without the daemon, and a request for a sleeping machine wakes it.
    daemon.act(&id, "standby").await.expect(200);
    assert_eq!(
        page(&url, Some("web.test")).await.expect("an answer"),
        (200, "web".to_owned())
    );
    assert_eq!(daemon.state(&id).await, "Running");
    let mut daemon = daemon;
    daemon.kill();
    assert_eq!(
        page(&url, Some("web.test")).await.expect("an answer"),
        (200, "web".to_owned())
    );
    assert_eq!(
        served(&format!("http://127.0.0.1:{published}/")).await,
        "web"
    );
    daemon.restart_with(NETWORK).await;
    assert_eq!(
        page(&url, Some("web.test")).await.expect("an answer"),
        (200, "web".to_owned())
    );
    let ip = address(&daemon, &id).await;
    assert_eq!(served(&format!("http://{ip}:{WEB}/")).await, "web");

    daemon
        .call(reqwest::Method::DELETE, "/ingresses/all", None)
        .await
        .expect(204);
    assert!(page(&url, Some("web.test")).await.is_err());
    daemon.delete(&id).await.expect(204);
    assert!(
        page(&format!("http://127.0.0.1:{published}/"), None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_local_port_is_local_and_comes_back_with_the_edge() {
    let Some(daemon) = start().await else { return };
    let port = free_port();
    let publish = |port: u16| json!({ "publish": [{ "host_ip": "127.0.0.1", "host_port": port, "port": WEB }] });
    let id = web(&daemon, "web", publish(port), json!({})).await;
    let local = format!("http://127.0.0.1:{port}/");
    assert_eq!(served(&local).await, "web");
    let host = host_address(&daemon).await;
    assert!(page(&format!("http://{host}:{port}/"), None).await.is_err());

    let somebody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let busy = somebody.local_addr().expect("an address").port();
    for taken in [port, busy] {
        let mut request = plain_create("second");
        request["network"] = publish(taken);
        daemon
            .post("/instances", request)
            .await
            .refused(409, "port_in_use");
    }

    // Nobody asks anything of the edge meanwhile.
    let edge = edge_of(&daemon).expect("an edge");
    rustix::process::kill_process(edge, rustix::process::Signal::KILL).expect("it is killed");
    until("the port to be served again", async || {
        let answer = page(&local, None).await.ok()?;
        (answer == (200, "web".to_owned())).then_some(())
    })
    .await;
    assert_ne!(edge_of(&daemon), Some(edge));

    // What is changed while it runs holds at once.
    let path = format!("/instances/{id}");
    let moved = free_port();
    let body = json!({ "network": { "publish": [{ "host_port": moved, "port": WEB }] } });
    daemon
        .call(reqwest::Method::PATCH, &path, Some(body))
        .await
        .expect(200);
    for at in ["127.0.0.1", host.as_str()] {
        assert_eq!(served(&format!("http://{at}:{moved}/")).await, "web");
    }
    assert!(page(&local, None).await.is_err());
    let body = json!({ "network": { "publish": [] } });
    daemon
        .call(reqwest::Method::PATCH, &path, Some(body))
        .await
        .expect(200);
    let moved = format!("http://127.0.0.1:{moved}/");
    assert!(page(&moved, None).await.is_err());
}

/// The process that serves ingress, names and published ports of a daemon.
fn edge_of(daemon: &Daemon) -> Option<rustix::process::Pid> {
    let data = daemon.data().to_str().expect("text");
    let processes = std::fs::read_dir("/proc").expect("processes");
    processes.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        let is_edge = arguments.contains("__edge") && arguments.contains(data);
        is_edge.then_some(rustix::process::Pid::from_raw(pid)?)
    })
}

/// The host's own address in the pool.
pub(crate) async fn host_address(daemon: &Daemon) -> String {
    daemon.get("/capabilities").await.expect(200)["network"]["subnet"]
        .as_str()
        .and_then(|subnet| subnet.strip_suffix(".0.0/16"))
        .map(|prefix| format!("{prefix}.0.1"))
        .expect("a subnet")
}

#[tokio::test]
async fn eight_forks_answer_on_eight_addresses_as_soon_as_they_are_announced() {
    let Some(daemon) = start().await else { return };
    let source = web(&daemon, "source", json!({}), json!({})).await;
    let ip = address(&daemon, &source).await;
    let mut open = TcpStream::connect((ip.as_str(), WEB))
        .await
        .expect("a connection");
    daemon.act(&source, "standby").await.expect(200);
    let forks = daemon.sprouts(&source, "fork", 8).await;
    let mut addresses = BTreeSet::new();
    for (number, id) in forks.iter().enumerate() {
        let ip = address(&daemon, id).await;
        assert_eq!(served(&format!("http://{ip}:{WEB}/")).await, "source");
        daemon.sh(id, &format!("echo {number} > {PAGE}")).await;
        addresses.insert(ip);
    }
    assert_eq!(addresses.len(), 8);
    for (number, id) in forks.iter().enumerate() {
        let ip = address(&daemon, id).await;
        assert_eq!(
            served(&format!("http://{ip}:{WEB}/")).await,
            number.to_string()
        );
        // Nothing of the template's connection is left in a fork.
        let connections = daemon
            .sh(
                id,
                "busybox netstat -tn 2>/dev/null | grep -c ESTABLISHED || true",
            )
            .await;
        assert_eq!(connections, "0");
    }
    // And whoever had it does not talk to one of them.
    let mut answer = Vec::new();
    let talk = async {
        open.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        open.read_to_end(&mut answer).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(3), talk).await;
    assert!(answer.is_empty(), "{ended:?} {answer:?}");
}

#[tokio::test]
async fn machines_reach_each_other_by_name_in_their_group_alone() {
    let Some(daemon) = start().await else { return };
    let group = json!({ "network": "team" });
    let one = web(&daemon, "one", json!({}), group.clone()).await;
    let two = web(&daemon, "two", json!({}), group).await;
    let stranger = web(&daemon, "stranger", json!({}), json!({})).await;
    let fetch = |address: &str| format!("timeout 5 busybox wget -q -O - http://{address}:{WEB}/");
    let (first, second) = (address(&daemon, &one).await, address(&daemon, &two).await);
    assert_eq!(resolved(&daemon, &one, "two").await, Some(second.clone()));
    assert_eq!(
        resolved(&daemon, &two, "one.coppice.internal").await,
        Some(first.clone())
    );
    assert_eq!(resolved(&daemon, &stranger, "one").await, None);
    assert_eq!(daemon.sh(&one, &fetch(&second)).await, "two");
    assert_eq!(daemon.sh(&two, &fetch(&first)).await, "one");
    let refused = daemon
        .exec(&stranger, &["/bin/sh", "-c", &fetch(&first)])
        .await;
    assert_ne!(refused.code, 0, "{refused:?}");
    // The host itself, and where clouds keep their secrets.
    let host = host_address(&daemon).await;
    for target in [host.as_str(), "169.254.169.254"] {
        let refused = daemon.exec(&one, &["/bin/sh", "-c", &fetch(target)]).await;
        assert_ne!(refused.code, 0, "{target}: {refused:?}");
    }
    // A tag that changes opens at once.
    let patch = json!({ "tags": { "network": "team" } });
    let path = format!("/instances/{stranger}");
    daemon
        .call(reqwest::Method::PATCH, &path, Some(patch))
        .await
        .expect(200);
    assert_eq!(daemon.sh(&stranger, &fetch(&first)).await, "one");
    assert_eq!(resolved(&daemon, &stranger, "one").await, Some(first));
}

#[tokio::test]
async fn a_limit_holds_for_what_is_really_transferred() {
    let Some(daemon) = start().await else { return };
    let limited = web(
        &daemon,
        "limited",
        json!({ "bandwidth_upload": "8Mbps" }),
        json!({}),
    )
    .await;
    daemon
        .sh(
            &limited,
            "dd if=/dev/zero of=/dev/shm/www/big bs=1M count=4 2>/dev/null",
        )
        .await;
    let url = format!("http://{}:{WEB}/big", address(&daemon, &limited).await);
    let began = std::time::Instant::now();
    let bytes = client()
        .get(&url)
        .send()
        .await
        .expect("an answer")
        .bytes()
        .await
        .expect("a file");
    let rate = bytes.len() as f64 * 8.0 / began.elapsed().as_secs_f64();
    assert_eq!(bytes.len(), 4 << 20);
    assert!(rate < 8e6 * 1.4, "{rate} bit/s");
}

/// Everything on the host that has this daemon's mark.
pub(crate) fn objects(daemon: &Daemon) -> BTreeSet<String> {
    let mark = std::fs::read_to_string(daemon.data().join("network.mark")).expect("a mark");
    let run = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program)
            .args(arguments)
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let mut found = BTreeSet::new();
    for line in run("ip", &["-o", "link"])
        .lines()
        .chain(run("nft", &["list", "tables"]).lines())
    {
        if line.contains(&mark) {
            found.insert(line.split('@').next().unwrap_or_default().to_owned());
        }
    }
    for entry in std::fs::read_dir(format!("/run/coppice/{mark}/netns"))
        .into_iter()
        .flatten()
        .flatten()
    {
        found.insert(entry.path().display().to_string());
    }
    found
}

/// How many namespaces, interfaces of slots, and tables there are.
fn kinds(daemon: &Daemon) -> (usize, usize, usize) {
    let found = objects(daemon);
    let netns = found.iter().filter(|name| name.starts_with('/')).count();
    let tables = found.iter().filter(|name| name.contains("table")).count();
    // The one that is not a slot's holds the pool's own address.
    (netns, found.len() - netns - tables - 1, tables)
}

/// What the daemon's table holds, without what it counted.
fn rules(daemon: &Daemon) -> String {
    let mark = std::fs::read_to_string(daemon.data().join("network.mark")).expect("a mark");
    let list = |what: &[&str]| {
        let output = std::process::Command::new("nft").args(what).output();
        String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned()
    };
    let tables = list(&["list", "tables"]);
    let table = tables
        .lines()
        .find(|line| line.contains(&mark))
        .expect("a table");
    let name = table.rsplit(' ').next().expect("a name");
    list(&["-s", "list", "table", "ip", name])
}

#[tokio::test]
async fn a_storm_of_forks_leaves_nothing_on_the_network_when_they_are_deleted() {
    let Some(daemon) = start().await else {
        return;
    };
    let before = until("the ring of prepared slots to be full", async || {
        let found = kinds(&daemon);
        (found.0 == SLOTS && found.1 == SLOTS).then_some(found)
    })
    .await;
    let rules_before = rules(&daemon);
    let source = web(&daemon, "source", json!({}), json!({})).await;
    daemon.act(&source, "standby").await.expect(200);
    let forks = daemon.sprouts(&source, "storm", 16).await;
    let mut addresses = BTreeSet::new();
    for fork in &forks {
        addresses.insert(address(&daemon, fork).await);
    }
    assert_eq!(addresses.len(), 16);
    for ip in &addresses {
        assert!(rules(&daemon).contains(ip.as_str()), "{ip}");
    }
    for fork in &forks {
        daemon.delete(fork).await.expect(204);
    }
    until("nothing but the ring to be left", async || {
        (kinds(&daemon) == before).then_some(())
    })
    .await;
    assert_eq!(rules(&daemon), rules_before);
    daemon.expect_tidy().await;
}

#[tokio::test]
async fn a_storm_of_forks_and_a_killed_daemon_leave_nothing_on_the_network() {
    let Some(mut daemon) = start().await else {
        return;
    };
    // The ring is full: so many namespaces and interfaces there are when nobody uses one.
    let before = until("the ring of prepared slots to be full", async || {
        let found = kinds(&daemon);
        (found.0 == SLOTS && found.1 == SLOTS).then_some(found)
    })
    .await;
    let source = web(&daemon, "source", json!({}), json!({})).await;
    daemon.act(&source, "standby").await.expect(200);
    daemon.act(&source, "promote-template").await.expect(200);
    let mut request = share("storm");
    request["count"] = json!(16);
    let storm = daemon.send_off("POST", &format!("/instances/{source}/fork"), request);
    until("some forks to be on the network", async || {
        let listed = daemon.list().await;
        let connected = listed
            .iter()
            .filter(|one| one["network"]["ip"].is_string())
            .count();
        (connected >= 3).then_some(())
    })
    .await;
    daemon.kill();
    storm.abort();
    daemon.restart_with(NETWORK).await;
    daemon.expect_tidy().await;
    for instance in daemon.list().await {
        let running = instance["state"] == "Running";
        assert_eq!(instance["network"]["ip"].is_string(), running, "{instance}");
        let id = instance["id"].as_str().expect("an id");
        if running {
            let ip = address(&daemon, id).await;
            assert_eq!(served(&format!("http://{ip}:{WEB}/")).await, "source");
        }
        if id != source {
            daemon.delete(id).await.expect(204);
        }
    }
    daemon.delete(&source).await.expect(204);
    until("nothing but the ring to be left", async || {
        (kinds(&daemon) == before).then_some(())
    })
    .await;
    daemon.kill();
    let output = daemon.command().arg("teardown").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(objects(&daemon), BTreeSet::new());
}
