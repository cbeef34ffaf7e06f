//! Commands and copies, over the websockets of a real socket.

use api::client::{Address, Client, ClientError, ExecEvent};
use api::exec::{ExecStart, ExecStreams};
use daemon::http::{Listeners, serve};

use crate::world::World;

/// A client over the daemon's unix socket.
pub(crate) async fn client(world: &World) -> Client {
    let socket = world.layout.socket();
    let router = world.daemon().router.clone();
    let path = socket.clone();
    let opened = world.daemon().runtime().spawn(async move {
        let listeners = Listeners::open("127.0.0.1:0", &path).await.unwrap();
        // Ends with the daemon.
        let (stop, stopped) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            serve(listeners, router, stopped).await.unwrap();
            drop(stop);
        });
    });
    opened.await.unwrap();
    Client::new(Address::Unix(socket), None).unwrap()
}

fn start(words: &[&str]) -> ExecStart {
    ExecStart {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        streams: ExecStreams::Tagged,
        ..ExecStart::default()
    }
}

/// Stdout, stderr and code of a command in the instance `a` that is given `input`.
pub(crate) async fn run(
    client: &Client,
    words: &[&str],
    input: Option<&[u8]>,
) -> (String, String, i32) {
    let mut session = client.exec("a", &start(words)).await.unwrap();
    if let Some(input) = input {
        session.input.write(input).await.unwrap();
        session.input.end().await.unwrap();
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match session.output.next().await.unwrap() {
            ExecEvent::Stdout(bytes) => out.extend_from_slice(&bytes),
            ExecEvent::Stderr(bytes) => err.extend_from_slice(&bytes),
            ExecEvent::Exit(code) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), code);
            }
        }
    }
}

#[tokio::test]
async fn commands_keep_their_streams_and_codes_apart() {
    let world = World::new().await;
    world.running("a").await;
    let client = client(&world).await;
    let (out, err, code) = run(&client, &["echo", "one", "two"], None).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("one two\n", "", 0));
    let (out, err, code) = run(&client, &["no-such-program"], None).await;
    assert_eq!((out.as_str(), code), ("", 127));
    assert!(err.contains("not found"), "{err}");
    let (_, _, code) = run(&client, &["exit", "7"], None).await;
    assert_eq!(code, 7);
    let input = vec![b'x'; 300_000];
    let (out, _, code) = run(&client, &["cat"], Some(&input)).await;
    assert_eq!((out.len(), code), (300_000, 0));
    world.delete_everything().await;
}

#[tokio::test]
async fn a_machine_that_does_not_run_refuses_the_websocket() {
    let world = World::new().await;
    world.standby("a").await;
    let client = client(&world).await;
    match client.exec("a", &start(&["true"])).await {
        Err(ClientError::Refused { status, body }) => {
            assert_eq!((status, body.code.as_str()), (409, "invalid_state"));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a machine in standby ran a command"),
    }
    world.delete_everything().await;
}

#[tokio::test]
async fn paths_are_looked_at() {
    let world = World::new().await;
    let id = world.running("a").await;
    world.exec(&id, &["write", "/tmp/word", "hello"]).await;
    let stat = async |path: &str| {
        world
            .get(&format!("/instances/{id}/stat?path={path}"))
            .await
            .ok()
    };
    let found = stat("/tmp/word").await;
    assert_eq!(found["exists"], true);
    assert_eq!(
        (&found["is_file"], &found["size"]),
        (&true.into(), &5.into())
    );
    assert_eq!(stat("/nothing").await["exists"], false);
    world.delete_everything().await;
}
