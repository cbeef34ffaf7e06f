//! Ports of the host that lead into instances.

use edge::{Forward, Protocol, Target};
use model::State;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::guest::Guest;
use crate::requests::get;
use crate::world::{DEADLINE, World, eventually, free_port, local};

fn publish(world: &mut World, protocol: Protocol, port: u16) -> u16 {
    let listen = free_port();
    world.config.forwards.push(Forward {
        id: format!("web/{port}"),
        protocol,
        listen: local(listen),
        target: Target {
            instance: "web".parse().unwrap(),
            port,
        },
    });
    listen
}

#[tokio::test]
async fn connections_lead_to_the_instance_and_follow_it() {
    let (one, two) = (
        Guest::new("one", "127.0.0.1").await,
        TcpListener::bind("127.0.0.2:0").await.unwrap(),
    );
    let mut world = World::new().await;
    let port = publish(&mut world, Protocol::Tcp, one.port());
    world.instance("web", "127.0.0.1");
    world.go().await;
    assert_eq!(get(port, "any", "/").await.body, "one");
    // The same port of the host may be given to another port while it stays open.
    let other = two.local_addr().unwrap().port();
    let _two = Guest::on("two", two);
    world.config.forwards[0].target.port = other;
    world.apply().await;
    world
        .change("web", |entry| {
            entry.address = Some("127.0.0.2".parse().unwrap());
        })
        .await;
    assert_eq!(get(port, "any", "/").await.body, "two");
    assert!(world.number("coppice_edge_forward_bytes_total", None).await > 0.0);
}

#[tokio::test]
async fn half_closed_connections_go_on_and_end_with_the_generation() {
    let guest = TcpListener::bind(local(0)).await.unwrap();
    let mut world = World::new().await;
    let port = publish(
        &mut world,
        Protocol::Tcp,
        guest.local_addr().unwrap().port(),
    );
    world.instance("web", "127.0.0.1");
    world.go().await;
    let mut client = TcpStream::connect(local(port)).await.unwrap();
    let (mut inside, _) = guest.accept().await.unwrap();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    timeout(DEADLINE, inside.read_to_string(&mut question))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(question, "question");
    inside.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    timeout(DEADLINE, client.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    world.change("web", |entry| entry.generation += 1).await;
    assert_eq!(
        timeout(DEADLINE, client.read(&mut answer))
            .await
            .unwrap()
            .unwrap_or(0),
        0
    );
}

#[tokio::test]
async fn nobody_there_is_a_refused_connection() {
    let mut world = World::new().await;
    let port = publish(&mut world, Protocol::Tcp, free_port());
    world.instance("web", "127.0.0.1");
    world.go().await;
    for state in [State::Running, State::Standby] {
        world.change("web", |entry| entry.state = state).await;
        let mut client = TcpStream::connect(local(port)).await.unwrap();
        let end = timeout(DEADLINE, client.read(&mut [0])).await.unwrap();
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(
        world
            .number("coppice_edge_forwards_total", Some("failed"))
            .await
            == 2.0
    );
}

#[tokio::test]
async fn datagrams_find_their_way_back() {
    let guest = UdpSocket::bind(local(0)).await.unwrap();
    let mut world = World::new().await;
    let port = publish(
        &mut world,
        Protocol::Udp,
        guest.local_addr().unwrap().port(),
    );
    world.instance("web", "127.0.0.1");
    world.go().await;
    let echo = tokio::spawn(async move {
        let mut datagram = [0; 100];
        while let Ok((length, from)) = guest.recv_from(&mut datagram).await {
            let answer = [b"echo ", &datagram[..length]].concat();
            guest.send_to(&answer, from).await.unwrap();
        }
    });
    let clients = [
        UdpSocket::bind(local(0)).await.unwrap(),
        UdpSocket::bind(local(0)).await.unwrap(),
    ];
    for (number, client) in clients.iter().enumerate() {
        client.connect(local(port)).await.unwrap();
        client.send(number.to_string().as_bytes()).await.unwrap();
    }
    let mut answer = [0; 100];
    for (number, client) in clients.iter().enumerate() {
        let length = timeout(DEADLINE, client.recv(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&answer[..length], format!("echo {number}").as_bytes());
    }
    let flows = async |world: &World| world.number("coppice_edge_forward_connections", None).await;
    assert!(flows(&world).await == 2.0);
    world.change("web", |entry| entry.generation += 1).await;
    eventually("flows end with the generation", async || {
        flows(&world).await == 0.0
    })
    .await;
    clients[0].send(b"again").await.unwrap();
    let length = timeout(DEADLINE, clients[0].recv(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer[..length], b"echo again");
    echo.abort();
}
