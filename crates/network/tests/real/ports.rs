//! Published ports.

use network::{Network, NetworkError, Policy, Protocol, Publish};

use crate::guest::Guest;
use crate::lab::{HOST, lab, take};

fn publishing(
    protocol: Protocol,
    host_ip: Option<&str>,
    host_port: u16,
    guest_port: u16,
) -> Policy {
    Policy {
        publish: vec![Publish {
            protocol,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
            guest_port,
        }],
        ..Policy::default()
    }
}

#[test]
fn real_a_published_port_leads_from_everywhere_to_the_guest() {
    lab(|lab| async move {
        let network = lab.open().await;
        let lease = take(&network, "web", publishing(Protocol::Tcp, None, 8080, 80)).await;
        let other = take(&network, "other", Policy::default()).await;
        let (guest, neighbour) = (Guest::boot(&lease), Guest::boot(&other));
        guest.serve("0.0.0.0:80", "web");
        let at = format!("{HOST}:8080");
        // The guest sees who asks.
        assert_eq!(lab.internet.ask(&at).unwrap(), "web 203.0.113.2");
        let host = network.pool().host();
        for (place, from) in [
            (&lab.host, "the host"),
            (&neighbour, "a neighbour"),
            (&guest, "itself"),
        ] {
            let answer = place
                .ask(&at)
                .unwrap_or_else(|error| panic!("{from}: {error}"));
            assert!(answer.starts_with("web "), "{from}: {answer}");
        }
        assert!(neighbour.reaches(&format!("{host}:8080")));
        // Only the port is open, not the guest.
        assert!(!neighbour.reaches(&format!("{}:80", lease.address)));
        network
            .set_policy(lease.slot, Policy::default())
            .await
            .unwrap();
        assert!(!lab.internet.reaches(&at));
        network.give_back(lease.slot).await.unwrap();
    });
}

#[test]
fn real_a_port_is_published_on_one_address_and_for_udp() {
    lab(|lab| async move {
        lab.host.ip("addr add 203.0.113.9/24 dev wan");
        let network = lab.open().await;
        let lease = take(
            &network,
            "udp",
            publishing(Protocol::Udp, Some("203.0.113.9"), 5300, 53),
        )
        .await;
        let guest = Guest::boot(&lease);
        guest.serve_udp("0.0.0.0:53");
        assert_eq!(
            lab.internet.ask_udp(0, "203.0.113.9:5300").unwrap(),
            "203.0.113.2"
        );
        assert!(lab.internet.ask_udp(0, &format!("{HOST}:5300")).is_err());
        let elsewhere = publishing(Protocol::Tcp, Some("192.0.2.1"), 80, 80);
        let error = network.set_policy(lease.slot, elsewhere).await.unwrap_err();
        assert!(matches!(error, NetworkError::BadPolicy(_)), "{error}");
        assert!(lab.internet.ask_udp(0, "203.0.113.9:5300").is_ok());
    });
}

#[test]
fn real_a_port_in_use_is_refused_and_nothing_is_taken() {
    lab(|lab| async move {
        let network = lab.open().await;
        lab.host.serve("127.0.0.1:8080", "somebody");
        let wanted = publishing(Protocol::Tcp, None, 8080, 80);
        let error = network.take("guest", wanted.clone()).await.unwrap_err();
        assert!(
            error
                .to_string()
                .contains("8080/tcp is in use by a process"),
            "{error}"
        );
        assert_eq!(network.usage().in_use, 0);
        let first = take(&network, "first", publishing(Protocol::Tcp, None, 8081, 80)).await;
        let third = take(&network, "third", Policy::default()).await;
        // Who listens on the loopback address for the first one is not who has the port.
        lab.host.serve("127.0.0.1:8081", "edge");
        let error = network
            .take("second", publishing(Protocol::Tcp, None, 8081, 80))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("in use by first"), "{error}");
        let error = network
            .set_policy(third.slot, publishing(Protocol::Tcp, None, 8081, 80))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("in use by first"), "{error}");
        network.give_back(first.slot).await.unwrap();
    });
}

#[test]
fn real_a_port_of_the_loopback_address_is_kept_for_who_listens_there() {
    lab(|lab| async move {
        let network = lab.open().await;
        let local = publishing(Protocol::Tcp, Some("127.0.0.1"), 8080, 80);
        let lease = take(&network, "local", local).await;
        let guest = Guest::boot(&lease);
        guest.serve("0.0.0.0:80", "guest");
        assert!(!lab.internet.reaches(&format!("{HOST}:8080")));
        let all = publishing(Protocol::Tcp, None, 8080, 80);
        let error = network.take("other", all).await.unwrap_err();
        assert!(error.to_string().contains("in use by local"), "{error}");
        // Who listens there for it is not in the way when it is opened further.
        lab.host.serve("127.0.0.1:8080", "edge");
        let all = publishing(Protocol::Tcp, None, 8080, 80);
        network.set_policy(lease.slot, all).await.unwrap();
        assert!(lab.internet.reaches(&format!("{HOST}:8080")));
        lab.host.serve("127.0.0.1:8081", "somebody");
        let busy = publishing(Protocol::Tcp, Some("127.0.0.1"), 8081, 80);
        let error = network.set_policy(lease.slot, busy).await.unwrap_err();
        assert!(matches!(error, NetworkError::PortInUse { .. }), "{error}");
    });
}
