//! The edge as a process that its starter does not keep alive.
//!
//! This program plays the daemon's binary: started with a certain variable, one of its tests is
//! the edge.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use edge::{Found, Start, ensure};

use crate::guest::Guest;
use crate::requests::{Connection, get};
use crate::world::{World, eventually};

/// The harness takes the edge's words for more names of tests, and finds none.
#[test]
#[ignore = "the role of an edge, for the other tests to start"]
fn role() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    // Without the word nobody wants an edge: all ignored tests were asked for.
    let Some(own) = arguments.iter().position(|word| word == edge::EDGE_COMMAND) else {
        return;
    };
    let code = edge::main(arguments[own + 1..].iter().cloned());
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::SUCCESS));
}

fn start(world: &World, build: &str) -> Start {
    let mut start = Start::new(world.place(), std::env::current_exe().unwrap(), build);
    let words = [
        "--ignored",
        "--exact",
        "--nocapture",
        "processes::role",
        edge::EDGE_COMMAND,
    ];
    start.arguments = words.map(OsString::from).to_vec();
    start
}

#[tokio::test]
async fn a_process_is_started_found_killed_and_replaced() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.client.stop().await.unwrap();
    world.ended().await;

    let (client, found) = ensure(&start(&world, "one")).await.unwrap();
    assert_eq!(found, Found::Started);
    world.go().await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
    let first = client.hello().await.unwrap();
    assert_ne!(first.pid, std::process::id());
    assert_eq!(
        ensure(&start(&world, "one")).await.unwrap().1,
        Found::Running
    );
    assert_eq!(client.hello().await.unwrap(), first);

    // It is killed, and the next one serves the same document.
    let pid = rustix::process::Pid::from_raw(first.pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("it is gone", async || client.hello().await.is_err()).await;
    assert_eq!(
        ensure(&start(&world, "one")).await.unwrap().1,
        Found::Started
    );
    world.tell().await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");

    // A request under way at the old build is answered while the new one listens.
    let mut connection = Connection::open(port).await;
    let under_way = tokio::spawn(async move { connection.get("example.com", "/late").await });
    eventually("the guest has it", async || {
        web.requests.load(Ordering::SeqCst) == 3
    })
    .await;
    assert_eq!(
        ensure(&start(&world, "two")).await.unwrap().1,
        Found::Replaced
    );
    assert_eq!(client.hello().await.unwrap().build, "two");
    world.tell().await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
    assert_eq!(under_way.await.unwrap().body, "web");

    client.stop().await.unwrap();
    assert!(client.hello().await.is_err());
}

#[tokio::test]
async fn an_edge_whose_directory_was_moved_is_replaced_and_serves_from_there() {
    let web = Guest::new("web", "127.0.0.1").await;
    let mut world = World::new().await;
    let port = world.rule("example.com", "web", web.port()).port;
    world.instance("web", "127.0.0.1");
    world.client.stop().await.unwrap();
    world.ended().await;
    let home = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| edge::Place::at(home.path().join(name)));
    let at = |place: &edge::Place| edge::Start {
        place: place.clone(),
        ..start(&world, "one")
    };
    let (of_old, of_new) = (at(&old), at(&new));
    world.client = ensure(&of_old).await.unwrap().0;
    world.go().await;

    std::fs::rename(old.directory(), new.directory()).unwrap();
    // Somebody else's by now.
    std::fs::create_dir(old.directory()).unwrap();
    std::fs::write(old.socket(), "").unwrap();
    let (client, found) = ensure(&of_new).await.unwrap();
    assert_eq!(found, Found::Replaced);
    world.client = client;
    world.go().await;
    assert_eq!(get(port, "example.com", "/").await.body, "web");
    assert_eq!(
        world.client.hello().await.unwrap().directory.as_deref(),
        Some(new.directory())
    );
    assert_eq!(ensure(&of_new).await.unwrap().1, Found::Running);
    assert!(old.socket().exists(), "what is there now was touched");
    world.client.stop().await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_no_edge_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let start = Start::new(
        edge::Place::at(directory.path().join("edge")),
        "/bin/false",
        "x",
    );
    let error = ensure(&start).await.unwrap_err();
    assert!(matches!(error, edge::StartError::Ended { .. }), "{error}");
    let absent = Start::new(start.place.clone(), "/nowhere/coppiced", "x");
    assert!(matches!(
        ensure(&absent).await.unwrap_err(),
        edge::StartError::Spawn { .. }
    ));
}
