//! Who reaches whom by default.

use network::{Network, Policy};

use crate::guest::Guest;
use crate::lab::{HOST, METADATA, PRIVATE, WEB, lab, take, until};

#[test]
fn real_two_guests_with_one_address_answer_on_two() {
    lab(|lab| async move {
        let network = lab.open().await;
        let mut guests = Vec::new();
        for name in ["first", "second"] {
            let lease = take(&network, name, Policy::default()).await;
            let guest = Guest::boot(&lease);
            guest.serve("0.0.0.0:80", name);
            guests.push((lease, guest, name));
        }
        let host = network.pool().host();
        for (lease, _, name) in &guests {
            let answer = lab.host.ask(&format!("{}:80", lease.address)).unwrap();
            assert_eq!(answer, format!("{name} {host}"));
            assert_eq!(lease.guest_address, guests[0].0.guest_address);
        }
    });
}

#[test]
fn real_a_guest_reaches_the_internet_as_the_host() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        let answer = guest.ask(&format!("{WEB}:80")).unwrap();
        assert_eq!(answer, format!("internet {HOST}"));
    });
}

#[test]
fn real_a_default_route_that_comes_later_leads_guests_out() {
    lab(|lab| async move {
        lab.host.ip("route del default");
        lab.host.run(|| {
            std::fs::write("/proc/sys/net/ipv4/conf/wan/forwarding", "0").unwrap();
        });
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        assert!(!guest.reaches(&format!("{WEB}:80")));
        lab.host.ip("route add default via 203.0.113.2");
        until("the guest gets out", || {
            guest
                .ask(&format!("{WEB}:80"))
                .is_ok_and(|answer| answer == format!("internet {HOST}"))
        })
        .await;
    });
}

#[test]
fn real_private_networks_metadata_the_host_and_others_are_closed() {
    lab(|lab| async move {
        let network = lab.open().await;
        let one = take(&network, "one", Policy::default()).await;
        let other = take(&network, "other", Policy::default()).await;
        let (guest, neighbour) = (Guest::boot(&one), Guest::boot(&other));
        neighbour.serve("0.0.0.0:80", "neighbour");
        lab.host.serve("0.0.0.0:8000", "host");
        let host = network.pool().host();
        for closed in [
            format!("{METADATA}:80"),
            format!("{PRIVATE}:80"),
            format!("{HOST}:8000"),
            format!("{host}:8000"),
            format!("{}:80", other.address),
        ] {
            assert!(!guest.reaches(&closed), "{closed}");
        }
        // Each of them answers those who may ask.
        for open in [
            format!("{METADATA}:80"),
            format!("{PRIVATE}:80"),
            format!("{host}:8000"),
            format!("{}:80", other.address),
        ] {
            assert!(lab.host.reaches(&open), "{open}");
        }
        assert!(guest.reaches(&format!("{WEB}:80")));
    });
}

#[test]
fn real_errors_about_a_packet_reach_the_one_who_sent_it() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let guest = Guest::boot(&lease);
        // Nobody listens: the other side says so by ICMP, and quotes the packet with the sender's address in it.
        for (place, to) in [
            (&*guest, format!("{WEB}:91")),
            (&lab.host, format!("{}:91", lease.address)),
        ] {
            let error = place.ask_udp(0, &to).unwrap_err();
            assert_eq!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused,
                "{to}: {error}"
            );
        }
    });
}

#[test]
fn real_a_slot_has_no_ipv6() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "guest", Policy::default()).await;
        let slot = crate::place::Place::of(&lease.netns);
        assert_eq!(slot.ip("-6 addr show"), "");
        let links = lab.host.ip("-oneline -6 addr show");
        assert!(!links.contains("cp00000001"), "{links}");
    });
}
