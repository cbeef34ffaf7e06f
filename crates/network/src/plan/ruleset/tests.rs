use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;
use crate::plan::elements;
use crate::{Config, Policy, Protocol, Publish};

fn names() -> Names {
    Names::new(&Config::new(
        "00c0ffee".parse().unwrap(),
        "/run/coppice".into(),
    ))
}

fn text(names: &Names, dns: Option<SocketAddrV4>) -> String {
    let pool: Pool = "10.208.0.0/16".parse().unwrap();
    let address = Ipv4Addr::new(10, 208, 0, 2);
    let publish = [None, Some(Ipv4Addr::new(192, 0, 2, 1))].map(|host_ip| Publish {
        protocol: Protocol::Udp,
        host_ip,
        host_port: if host_ip.is_some() { 53 } else { 8080 },
        guest_port: 80,
    });
    let policy = Policy {
        allow: vec![
            "10.1.0.0/16".parse().unwrap(),
            "169.254.169.254/32".parse().unwrap(),
        ],
        publish: publish.to_vec(),
        ..Policy::default()
    };
    Ruleset {
        names,
        pool,
        dns,
        elements: &elements("cp00c0ffee2", address, &policy, Some(1)),
        services: &[Service {
            protocol: Protocol::Tcp,
            port: 443,
        }],
    }
    .text()
}

#[test]
fn real_nft_takes_the_table_as_it_is() {
    let names = names();
    for dns in [None, Some("10.208.0.1:5353".parse().unwrap())] {
        let text = text(&names, dns);
        // In a namespace of its own: nothing of the host is looked at or changed.
        let nft = Command::new("unshare")
            .args(["--net", "nft", "--file", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let (Ok(mut nft), true) = (nft, std::path::Path::new("/usr/sbin/nft").exists()) else {
            println!("skipped: nft or unshare is not installed");
            return;
        };
        nft.stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = nft.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unshare failed") {
            println!("skipped: no right to make a namespace");
            return;
        }
        assert!(output.status.success(), "{said}\n{text}");
    }
}

#[test]
fn without_a_server_no_dns_is_let_through() {
    let names = names();
    assert!(!text(&names, None).contains("dport 53 "));
    assert!(
        text(&names, Some("10.208.0.1:5353".parse().unwrap()))
            .contains("dport 53 dnat ip to 10.208.0.1:5353")
    );
}
