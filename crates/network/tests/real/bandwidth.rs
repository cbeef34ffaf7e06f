//! Limits of speed, measured.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use network::{Bandwidth, Network, Policy};

use crate::guest::Guest;
use crate::lab::{Lab, lab, take};
use crate::place::Place;

/// Bytes a second from one place to another over one connection, for about a second.
fn speed(from: &Place, to: &Place, address: &str) -> f64 {
    let listener = to.run(|| TcpListener::bind(("0.0.0.0", 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let mut sender = from.run(|| TcpStream::connect(format!("{address}:{port}")).unwrap());
    let (mut receiver, _) = listener.accept().unwrap();
    let began = Instant::now();
    let enough = Duration::from_secs(1);
    let sending = std::thread::spawn(move || {
        let chunk = vec![7; 1 << 14];
        while began.elapsed() < enough && sender.write_all(&chunk).is_ok() {}
    });
    let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match receiver.read(&mut buffer).unwrap() {
            0 => break,
            length => count += length,
        }
    }
    sending.join().unwrap();
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let count = count as f64;
    count / began.elapsed().as_secs_f64()
}

fn both(lab: &Lab, guest: &Guest, address: &str) -> (f64, f64) {
    let up = speed(guest, &lab.internet, crate::lab::WEB);
    (up, speed(&lab.host, guest, address))
}

#[test]
fn real_upload_and_download_are_limited_each_for_itself_and_while_running() {
    lab(|lab| async move {
        let network = lab.open().await;
        let limited = |upload, download| Policy {
            bandwidth: Bandwidth { upload, download },
            ..Policy::default()
        };
        let limit = 4_000_000;
        let lease = take(&network, "guest", limited(Some(limit), None)).await;
        let guest = Guest::boot(&lease);
        let address = lease.address.to_string();
        let (slow_up, fast_down) = both(&lab, &guest, &address);
        network
            .set_policy(lease.slot, limited(None, Some(limit)))
            .await
            .unwrap();
        let (fast_up, slow_down) = both(&lab, &guest, &address);
        // Half a megabyte a second. Without limits it is a hundred times that, on a busy machine still several times.
        for (name, slow, fast) in [
            ("upload", slow_up, fast_up),
            ("download", slow_down, fast_down),
        ] {
            println!("{name}: {slow:.0} bytes/s limited, {fast:.0} unlimited");
            assert!(
                slow < 800_000.0,
                "{name} passes its limit: {slow:.0} bytes/s"
            );
            assert!(
                fast > 2.0 * slow,
                "{name} is slow without a limit: {fast:.0} bytes/s"
            );
        }
        let traffic = network.traffic(lease.slot).await.unwrap();
        assert!(
            traffic.tx_bytes > 100_000 && traffic.rx_bytes > 100_000,
            "{traffic:?}"
        );
        network.give_back(lease.slot).await.unwrap();
    });
}
