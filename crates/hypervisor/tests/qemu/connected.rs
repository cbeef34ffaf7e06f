//! Machines that talk over their network card.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Instant;

use guest::{Identity, Link};

use crate::network::Network;
use crate::subject::Qemu;
use crate::{agent, speed, wire};

const PORT: u16 = 8080;

/// Both ends of one connection.
const INSIDE: usize = 2;

/// A template serves on its network. Its fork does so from its first moment, under its own name, and without the
/// connections of the template, which goes on with them when it wakes as itself.
pub(crate) async fn connections_end_with_their_machine(subject: &Qemu) {
    let Some(connected) = subject.guest.network() else {
        println!("  skipped: there is no network to put a machine into");
        return;
    };
    let driver = subject.driver_with(subject.machine, Arc::default()).await;
    let template = speed::try_boot(subject, Some(connected.nic()))
        .await
        .unwrap();
    agent::start_in(template.vm.as_ref(), Some(wire::for_guest())).await;
    let (link, _events) = agent::connect(template.vm.as_ref()).await;
    look_at_the_guest(&link).await;

    shell(&link, &format!("mkdir -p /srv; httpd -p {PORT} -h /srv")).await;
    let kept = serve(connected, &link, "template").await;
    let local = format!("(sleep 1000 | nc 127.0.0.1 {PORT}) >/dev/null 2>&1 &");
    shell(&link, &local).await;
    let begun = Instant::now();
    while connections(&link).await != (1, INSIDE) {
        assert!(begun.elapsed() < speed::PATIENCE, "no connection inside");
    }
    link.quiesce(speed::PATIENCE).await.unwrap();
    let (image, _, _) = speed::standby(template).await;

    // As itself: the connection goes on. A rehearsal leaves it alone.
    let same = speed::fork_in(subject, &driver, &image, Some(connected.nic())).await;
    let (link, _events) = agent::connect(same.vm.as_ref()).await;
    link.rehearse(speed::PATIENCE).await.unwrap();
    let identity = Identity {
        new_machine: false,
        ..agent::identity()
    };
    link.resume(identity, speed::PATIENCE).await.unwrap();
    assert_eq!(connections(&link).await.0, 1);
    assert!(get(kept, "/name").ends_with("template"));
    same.vm.kill().await.unwrap();

    // As another one.
    let fork = speed::fork_in(subject, &driver, &image, Some(connected.nic())).await;
    let (link, _events) = agent::connect(fork.vm.as_ref()).await;
    let mut changed = wire::for_guest();
    changed.search = vec!["fork.internal".into()];
    let identity = Identity {
        network: Some(changed),
        ..agent::identity()
    };
    link.resume(identity, speed::PATIENCE).await.unwrap();
    assert_eq!(
        connections(&link).await,
        (0, INSIDE),
        "connections of the template"
    );
    serve(connected, &link, "fork").await;
    let hosts = agent::run(&link, &["cat", "/etc/hosts"]).await;
    assert!(
        hosts.contains("10.99.0.2\tfork") && !hosts.contains("conformance"),
        "{hosts}"
    );
    let resolver = agent::run(&link, &["cat", "/etc/resolv.conf"]).await;
    assert_eq!(resolver, "search fork.internal\nnameserver 10.99.0.1");
    fork.vm.kill().await.unwrap();
}

async fn look_at_the_guest(link: &Link) {
    let route = agent::run(link, &["ip", "route"]).await;
    assert!(route.contains("default via 10.99.0.1 dev eth0"), "{route}");
    let card = agent::run(link, &["ip", "addr", "show", "dev", "eth0"]).await;
    for word in ["mtu 1400", "inet 10.99.0.2/24", "02:c0:ff:00:00:01", ",UP"] {
        assert!(card.contains(word), "{word} is missing in {card}");
    }
    assert!(!card.contains("inet6"), "{card}");
    let ping = agent::run(link, &["ping", "-c", "1", "-W", "20", "10.99.0.1"]).await;
    assert!(ping.contains("1 packets received"), "{ping}");
}

/// Has the guest serve `word`, which is asked for over one connection while another one is kept open.
async fn serve(connected: &Network, link: &Link, word: &str) -> TcpStream {
    let command = format!("printf %s {word} > /srv/name");
    shell(link, &command).await;
    let kept = wire::connect(connected, PORT);
    let served = get(wire::connect(connected, PORT), "/name");
    assert!(served.ends_with(word), "{served}");
    kept
}

async fn shell(link: &Link, command: &str) {
    agent::run(link, &["/bin/sh", "-c", command]).await;
}

fn get(mut stream: TcpStream, path: &str) -> String {
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Established connections of the guest with others, and with itself.
async fn connections(link: &Link) -> (usize, usize) {
    let text = agent::run(link, &["netstat", "-tn"]).await;
    let established = text.lines().filter(|line| line.contains("ESTABLISHED"));
    let (inside, outside): (Vec<_>, Vec<_>) =
        established.partition(|line| line.contains("127.0.0.1"));
    (outside.len(), inside.len())
}
