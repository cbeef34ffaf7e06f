//! What policies open and close.

use std::net::Ipv4Addr;
use std::time::Duration;

use network::{Egress, Network, Policy, Protocol, Service};

use crate::guest::Guest;
use crate::lab::{METADATA, PRIVATE, WEB, lab, take, until};

fn allowing(blocks: &[&str]) -> Policy {
    Policy {
        allow: blocks.iter().map(|block| block.parse().unwrap()).collect(),
        ..Policy::default()
    }
}

fn listing(blocks: &[&str], domains: &[&str]) -> Policy {
    Policy {
        egress: Egress::AllowList {
            cidrs: blocks.iter().map(|block| block.parse().unwrap()).collect(),
            domains: domains.iter().map(ToString::to_string).collect(),
        },
        ..Policy::default()
    }
}

fn grouped(name: &str) -> Policy {
    Policy {
        group: Some(name.to_owned()),
        ..Policy::default()
    }
}

#[test]
fn real_a_group_reaches_itself_and_nobody_else_reaches_it() {
    lab(|lab| async move {
        let network = lab.open().await;
        let mut guests = Vec::new();
        for (name, policy) in [
            ("one", grouped("blue")),
            ("two", grouped("blue")),
            ("red", grouped("red")),
            ("alone", Policy::default()),
        ] {
            let lease = take(&network, name, policy).await;
            let guest = Guest::boot(&lease);
            guest.serve("0.0.0.0:80", name);
            guests.push((guest, format!("{}:80", lease.address), lease));
        }
        let (one, two) = (&guests[0], &guests[1]);
        // Group members see each other's own address.
        assert_eq!(one.0.ask(&two.1).unwrap(), format!("two {}", one.2.address));
        assert_eq!(two.0.ask(&one.1).unwrap(), format!("one {}", two.2.address));
        for (from, to) in [(0, 2), (2, 0), (3, 0), (0, 3)] {
            assert!(!guests[from].0.reaches(&guests[to].1), "{from} to {to}");
        }
        network
            .set_policy(two.2.slot, grouped("red"))
            .await
            .unwrap();
        assert!(!one.0.reaches(&two.1));
        assert!(guests[2].0.reaches(&two.1));
    });
}

#[test]
fn real_an_allow_list_opens_what_is_closed_by_default() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(
            &network,
            "guest",
            allowing(&["192.168.77.0/24", "169.254.169.254/32"]),
        )
        .await;
        let guest = Guest::boot(&lease);
        for open in [PRIVATE, METADATA, WEB] {
            assert!(guest.reaches(&format!("{open}:80")), "{open}");
        }
        network
            .set_policy(lease.slot, Policy::default())
            .await
            .unwrap();
        assert!(!guest.reaches(&format!("{PRIVATE}:80")));
        assert!(guest.reaches(&format!("{WEB}:80")));
    });
}

#[test]
fn real_without_egress_only_the_host_gets_an_answer() {
    lab(|lab| async move {
        let network = lab.open().await;
        let none = Policy {
            egress: Egress::None,
            ..Policy::default()
        };
        let lease = take(&network, "guest", none).await;
        let guest = Guest::boot(&lease);
        guest.serve("0.0.0.0:80", "guest");
        assert!(!guest.reaches(&format!("{WEB}:80")));
        assert!(lab.host.reaches(&format!("{}:80", lease.address)));
    });
}

#[test]
fn real_an_egress_list_opens_its_blocks_and_what_its_names_resolved_to() {
    lab(|lab| async move {
        let other = "198.51.100.8";
        lab.internet.ip(&format!("addr add {other}/32 dev lo"));
        let network = lab.open().await;
        let lease = take(
            &network,
            "guest",
            listing(&["198.51.100.7/32", "0.0.0.0/32"], &["example.com"]),
        )
        .await;
        let guest = Guest::boot(&lease);
        assert!(guest.reaches(&format!("{WEB}:80")));
        assert!(!guest.reaches(&format!("{other}:80")));
        let resolved: Vec<Ipv4Addr> = [other, PRIVATE]
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect();
        for _ in 0..2 {
            network
                .allow_resolved(lease.slot, &resolved, Duration::from_secs(90))
                .await
                .unwrap();
            network
                .allow_resolved(lease.slot, &resolved, Duration::from_secs(600))
                .await
                .unwrap();
        }
        assert!(guest.reaches(&format!("{other}:80")));
        // A name cannot open what is private.
        assert!(!guest.reaches(&format!("{PRIVATE}:80")));
        // Another list forgets what the names of this one resolved to.
        network
            .set_policy(lease.slot, listing(&["198.51.100.7/32"], &[]))
            .await
            .unwrap();
        assert!(!guest.reaches(&format!("{other}:80")));
    });
}

#[test]
fn real_a_wide_egress_list_opens_nothing_private() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", listing(&["0.0.0.0/0"], &[])).await;
        let guest = Guest::boot(&lease);
        assert!(guest.reaches(&format!("{WEB}:80")));
        assert!(!guest.reaches(&format!("{METADATA}:80")));
    });
}

#[test]
fn real_narrowing_ends_connections_that_it_forbids() {
    lab(|lab| async move {
        use std::io::{Read, Write};
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        let listener = lab
            .internet
            .run(|| std::net::TcpListener::bind("0.0.0.0:81").unwrap());
        let mut stream = guest.run(|| std::net::TcpStream::connect(format!("{WEB}:81")).unwrap());
        let (mut peer, _) = listener.accept().unwrap();
        let mut byte = [0];
        stream.write_all(b"1").unwrap();
        peer.read_exact(&mut byte).unwrap();
        let none = Policy {
            egress: Egress::None,
            ..Policy::default()
        };
        network.set_policy(lease.slot, none).await.unwrap();
        stream.write_all(b"2").unwrap();
        peer.set_read_timeout(Some(crate::place::PATIENCE)).unwrap();
        assert!(peer.read_exact(&mut byte).is_err());
    });
}

#[test]
fn real_the_gateway_answers_dns_and_sees_who_asks() {
    lab(|lab| async move {
        let mut config = lab.config(1);
        config.dns = Some("0.0.0.0:5353".parse().unwrap());
        let (network, _) = lab.open_with(config, vec![]).await;
        let at = format!("{}:5353", network.pool().host());
        lab.host.serve_udp(&at);
        lab.host.serve(&at, "dns");
        let none = Policy {
            egress: Egress::None,
            ..Policy::default()
        };
        let lease = take(&network, "guest", none).await;
        let guest = Guest::boot(&lease);
        let gateway = format!("{}:53", lease.gateway);
        assert_eq!(
            guest.ask_udp(0, &gateway).unwrap(),
            lease.address.to_string()
        );
        assert_eq!(
            guest.ask(&gateway).unwrap(),
            format!("dns {}", lease.address)
        );
        // Ping is the only other thing that the gateway answers.
        assert!(!guest.reaches(&format!("{}:80", lease.gateway)));
    });
}

#[test]
fn real_services_of_the_host_are_open_to_those_with_open_egress() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        lab.host.serve("0.0.0.0:443", "ingress");
        let at = format!("{}:443", crate::lab::HOST);
        assert!(!guest.reaches(&at));
        let service = Service {
            protocol: Protocol::Tcp,
            port: 443,
        };
        network.set_services(&[service]).await.unwrap();
        assert!(guest.reaches(&at));
        network.set_services(&[]).await.unwrap();
        assert!(!guest.reaches(&at));
    });
}

#[test]
fn real_other_addresses_and_other_protocols_of_a_guest_are_dropped() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        lab.internet.serve_udp(&format!("{WEB}:90"));
        assert!(guest.ask_udp(0, &format!("{WEB}:90")).is_ok());
        let host = network.pool().host();
        // Under addresses that are somebody else's, nothing leaves; the counters of the veth show it.
        let before = network.traffic(lease.slot).await.unwrap().tx_bytes;
        for spoofed in [
            "198.51.100.99".to_owned(),
            lease.address.to_string(),
            host.to_string(),
        ] {
            guest.ip(&format!("addr add {spoofed}/32 dev eth0"));
            guest.run(|| {
                let socket = std::net::UdpSocket::bind((spoofed.as_str(), 0)).unwrap();
                socket.send_to(b"spoof", format!("{WEB}:90")).unwrap();
            });
        }
        guest.ip("link set eth0 address 02:00:00:00:00:77");
        assert!(guest.ask_udp(0, &format!("{WEB}:90")).is_err());
        assert_eq!(network.traffic(lease.slot).await.unwrap().tx_bytes, before);
        guest.ip(&format!("link set eth0 address {}", lease.mac));
        let ready = || guest.ask_udp(0, &format!("{WEB}:90")).is_ok();
        until("the guest is heard under its own address", ready).await;
    });
}
