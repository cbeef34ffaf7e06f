//! The command line and the doctor on a network: publishing, ingress, what is left.

use std::fs;

use e2e::{COUNTER, Daemon};
use serde_json::Value;

/// Port of the web server in guests.
const WEB: u16 = 8080;

#[tokio::test]
async fn cli_publishes_routes_and_diagnoses() {
    let network = [("COPPICE_NETWORK", "auto"), ("COPPICE_NETWORK_SLOTS", "2")];
    let Some(mut daemon) = Daemon::start_with(&network).await else {
        return;
    };
    if grades(&doctor(&daemon), "network")
        .iter()
        .any(|grade| grade != "ok")
    {
        println!("skipped: this host gives instances no network");
        return;
    }
    publishes(&daemon).await;
    routes(&daemon).await;
    diagnoses(&mut daemon).await;
}

/// A web server that a port of the host leads to.
async fn publishes(daemon: &Daemon) {
    let program = format!(
        "mkdir -p /dev/shm/www; hostname > /dev/shm/www/index.html; \
         busybox httpd -p {WEB} -h /dev/shm/www; {COUNTER}"
    );
    let port = free_port();
    let published = format!("127.0.0.1:{port}:{WEB}");
    let run = daemon
        .cli(&[
            "run",
            "busybox",
            "--name",
            "web",
            "--memory",
            "128MB",
            "--cpus",
            "1",
            "--overlay-size",
            "64MB",
            "-p",
            &published,
            "--group",
            "team",
            "--egress-domain",
            "example.com",
            "--",
            "/bin/sh",
            "-c",
            &program,
        ])
        .await;
    assert_eq!(run.ok(), "web");
    daemon.wait_for_counter("web").await;
    assert_eq!(page(port, "").await, Some((200, "web\n".to_owned())));

    let ps = daemon.cli(&["ps"]).await;
    assert!(
        ps.ok().contains(&format!("127.0.0.1:{port}->{WEB}/tcp")),
        "{ps:?}"
    );
    let inspect = daemon.cli(&["inspect", "web"]).await;
    assert!(
        inspect.ok().contains("egress to     example.com"),
        "{inspect:?}"
    );
    assert!(inspect.ok().contains("group         team"), "{inspect:?}");

    let taken = daemon
        .cli(&["create", "busybox", "--name", "b", "-p", &published])
        .await;
    assert_eq!(taken.code, 1, "{taken:?}");
    assert!(taken.stderr.contains("another port"), "{taken:?}");
}

/// The same web server by host name, asleep at first.
async fn routes(daemon: &Daemon) {
    let port = free_port();
    let number = port.to_string();
    let to = format!("{{instance}}:{WEB}");
    let create = [
        "ingress",
        "create",
        "all",
        "--hostname",
        "{instance}.test",
        "--to",
        &to,
        "--port",
        &number,
        "--wake",
    ];
    assert_eq!(daemon.cli(&create).await.ok(), "all");
    daemon.cli(&["standby", "web"]).await.ok();
    let answer = page(port, "web.test").await;
    assert_eq!(answer, Some((200, "web\n".to_owned())));
    assert_eq!(daemon.state("web").await, "Running");
    assert_eq!(
        page(port, "other.test").await.map(|(status, _)| status),
        Some(404)
    );

    let listed = daemon.cli(&["ingress", "ls"]).await;
    assert!(listed.ok().contains("wake"), "{listed:?}");
    let again = [
        "ingress",
        "create",
        "more",
        "--hostname",
        "{name}.test",
        "--to",
        &to,
        "--port",
        &number,
    ];
    let again = daemon.cli(&again).await;
    assert_eq!(again.code, 1, "{again:?}");
    let shown = daemon
        .cli(&["--json", "ingress", "inspect", "all"])
        .await
        .json();
    assert_eq!(shown["rules"][0]["target"]["port"], WEB, "{shown}");
    assert_eq!(daemon.cli(&["ingress", "rm", "all"]).await.ok(), "all");
    assert_eq!(daemon.cli(&["ingress", "inspect", "all"]).await.code, 1);
    assert_eq!(page(port, "web.test").await, None);
}

/// What the doctor says while the daemon runs, after it was killed, and after all was removed.
async fn diagnoses(daemon: &mut Daemon) {
    let findings = doctor(daemon);
    for what in ["network", "edge", "dns"] {
        assert_eq!(grades(&findings, what), ["ok"], "{what}: {findings}");
    }
    let mark = fs::read_to_string(daemon.data().join("network.mark")).expect("a mark");
    let data = daemon.data().display().to_string();
    let own = |findings: &Value| {
        findings
            .to_string()
            .contains(&format!("teardown --data-dir {data}"))
    };
    assert!(!own(&findings), "{findings}");
    daemon.cli(&["rm", "-f", "web"]).await.ok();
    daemon.kill();
    let findings = doctor(daemon);
    assert!(own(&findings), "{findings}");
    assert_eq!(grades(&findings, "edge"), ["ok"], "{findings}");
    let output = daemon.command().arg("teardown").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let findings = doctor(daemon);
    assert!(
        !own(&findings) && !findings.to_string().contains(&mark),
        "{findings}"
    );
}

/// The findings of `coppiced doctor`. Other daemons of this host may have some too.
fn doctor(daemon: &Daemon) -> Value {
    let mut command = daemon.command();
    command
        .args(["doctor", "--json"])
        .env("COPPICE_NETWORK", "auto");
    let output = command.output().expect("it runs");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn grades(findings: &Value, what: &str) -> Vec<String> {
    let all = findings.as_array().expect("a list").iter();
    all.filter(|one| one["what"] == what)
        .filter_map(|one| Some(one["grade"].as_str()?.to_owned()))
        .collect()
}

/// Status and page of a port of this host's loopback; none if nobody answers there.
async fn page(port: u16, host: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let mut request = client
        .get(format!("http://127.0.0.1:{port}/"))
        .timeout(std::time::Duration::from_secs(60));
    if !host.is_empty() {
        request = request.header("host", host);
    }
    let response = request.send().await.ok()?;
    Some((response.status().as_u16(), response.text().await.ok()?))
}

/// A port of the host that nobody uses now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
