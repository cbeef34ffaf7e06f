//! Agents that take connections, of which the newest is served.

use std::io::Read;

use agent::Peers;
use guest::{GuestPhase, Identity, Output};

use crate::address;
use crate::support::{PATIENCE, Target, command, identity, run, start_spec};

on_sockets! {
    a_lost_connection_ends_its_commands_and_not_the_machine
    a_new_connection_takes_the_place_of_the_one_before
    a_frozen_machine_waits_for_a_host_that_resumes_it
    connections_that_say_nothing_do_no_harm
}

async fn a_lost_connection_ends_its_commands_and_not_the_machine(mut target: Target) {
    let (link, events) = target.connect().await;
    let program = link.start(start_spec(&["sleep", "600"]), PATIENCE).await;
    let pid = program.unwrap().pid;
    let session = link.exec(command(&["sleep", "600"])).await.unwrap();
    drop((link, events, session));

    target.dial();
    let (link, _events) = target.connect().await;
    assert_eq!(link.phase(), GuestPhase::Started { pid });
    assert_eq!(
        run(&link, command(&["echo", "here"])).await.text(),
        "here\n"
    );
}

async fn a_new_connection_takes_the_place_of_the_one_before(mut target: Target) {
    let first = target.started().await;
    let (_input, mut output) = first
        .exec(command(&["sleep", "600"]))
        .await
        .unwrap()
        .split();
    target.dial();
    let (second, _events) = target.connect().await;
    tokio::time::timeout(PATIENCE, first.closed())
        .await
        .unwrap();
    let ended = tokio::time::timeout(PATIENCE, output.next()).await.unwrap();
    assert!(!matches!(ended, Ok(Some(Output::Stdout(_)))), "{ended:?}");
    assert_eq!(
        run(&second, command(&["echo", "new"])).await.text(),
        "new\n"
    );
}

/// As a fork finds it: saved with a host on the line, woken with none.
async fn a_frozen_machine_waits_for_a_host_that_resumes_it(mut target: Target) {
    let link = target.started().await;
    link.quiesce(PATIENCE).await.unwrap();
    drop(link);
    for _ in 0..2 {
        target.dial();
        let (link, _events) = target.connect().await;
        assert!(link.frozen(), "losing a host thaws nothing");
    }
    target.dial();
    let (link, _events) = target.connect().await;
    let fork = Identity {
        new_machine: true,
        ..identity("fork")
    };
    link.resume(fork, PATIENCE).await.unwrap();
    assert_eq!(
        run(&link, command(&["echo", "woken"])).await.text(),
        "woken\n"
    );
}

async fn connections_that_say_nothing_do_no_harm(mut target: Target) {
    drop(target.stream.take());
    for _ in 0..30 {
        target.dial();
    }
    let link = target.started().await;
    assert_eq!(run(&link, command(&["echo", "on"])).await.text(), "on\n");
}

/// Programs of the guest reach the agent's port when root has loaded a loopback. They are not the
/// host.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_host_is_served_on_a_port_for_the_host() {
    strangers_are_not_served().await;
}

/// On all kinds of sockets that there are here.
pub(crate) async fn strangers_are_not_served() {
    let vsock = address::vsock(Peers::Host);
    for (listener, address) in [Some(address::unix(Peers::Host)), vsock]
        .into_iter()
        .flatten()
    {
        Target::serve_for_ever(listener);
        let mut stranger = address.connect().unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut said = Vec::new();
        let ended = stranger.read_to_end(&mut said);
        // A reset is an end too; running out of time is none.
        let reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(
            ended.map_or_else(reset, |_| true),
            "the agent keeps the line"
        );
        assert_eq!(said, b"");
    }
}
