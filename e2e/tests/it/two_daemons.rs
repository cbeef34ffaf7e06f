//! Two daemons with networks on one host, and names that programs of the host ask for.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use e2e::Daemon;
use serde_json::json;

use crate::network::{WEB, address, free_port, host_address, objects, page, served, start, web};

/// Where programs of the host ask for instances.
const HOST_DNS: u16 = 4954;

/// A machine that is reached by its address, a published port and a host name.
struct Site {
    daemon: Daemon,
    id: String,
    ip: String,
    published: u16,
    ingress: u16,
}

impl Site {
    async fn new(daemon: Daemon, name: &str) -> Self {
        let (published, ingress) = (free_port(), free_port());
        let publish = json!({ "publish": [{ "host_port": published, "port": WEB }] });
        let id = web(&daemon, name, publish, json!({})).await;
        let request = json!({ "name": "all", "rules": [{
            "match": { "hostname": "{instance}.test", "port": ingress },
            "target": { "instance": "{instance}", "port": WEB },
        }] });
        daemon.post("/ingresses", request).await.expect(201);
        Self {
            ip: address(&daemon, &id).await,
            daemon,
            id,
            published,
            ingress,
        }
    }

    async fn answers(&self, name: &str) {
        assert_eq!(served(&format!("http://{}:{WEB}/", self.ip)).await, name);
        let published = format!("http://127.0.0.1:{}/", self.published);
        assert_eq!(served(&published).await, name);
        let ingress = format!("http://127.0.0.1:{}/", self.ingress);
        let answer = page(&ingress, Some(&format!("{name}.test"))).await;
        assert_eq!(answer.expect("an answer"), (200, name.to_owned()));
        let resolver = host_address(&self.daemon).await;
        assert_eq!(
            asked(&resolver, &format!("{name}.coppice.internal")),
            Some(self.ip.clone())
        );
    }
}

/// What a resolver says of a name: an address, or nothing.
fn asked(resolver: &str, name: &str) -> Option<String> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label"));
        question.extend(label.bytes());
    }
    // The end of the name, type A, class IN.
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let limit = Some(Duration::from_secs(20));
    socket.set_read_timeout(limit).expect("a limit");
    socket
        .send_to(&question, (resolver, HOST_DNS))
        .expect("it is asked");
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).expect("an answer");
    let answers = u16::from_be_bytes([answer[6], answer[7]]);
    let address: [u8; 4] = answer[length - 4..length].try_into().expect("four bytes");
    (answers > 0).then(|| Ipv4Addr::from(address).to_string())
}

#[tokio::test]
async fn two_daemons_of_one_host_do_not_disturb_each_other() {
    let (Some(first), Some(second)) = (start().await, start().await) else {
        return;
    };
    let (mut first, second) = tokio::join!(Site::new(first, "one"), Site::new(second, "two"));
    assert_ne!(
        host_address(&first.daemon).await,
        host_address(&second.daemon).await
    );
    first.answers("one").await;
    second.answers("two").await;
    // Each knows its own alone.
    let resolver = host_address(&second.daemon).await;
    assert_eq!(asked(&resolver, "one.coppice.internal"), None);
    let ingress = format!("http://127.0.0.1:{}/", second.ingress);
    let answer = page(&ingress, Some("one.test")).await;
    assert_eq!(answer.expect("an answer").0, 404);

    let of_the_second = objects(&second.daemon);
    first.daemon.delete(&first.id).await.expect(204);
    first.daemon.kill();
    second.answers("two").await;
    let mut teardown = first.daemon.command();
    let output = teardown.arg("teardown").output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(objects(&first.daemon), Default::default());
    assert_eq!(objects(&second.daemon), of_the_second);
    second.answers("two").await;
}
