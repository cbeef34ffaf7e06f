//! Connections and phases: start, resume, exit, hello, loss.

use std::time::Duration;

use guest::{ExecSpec, FailureKind, GuestEvent, GuestPhase, Link, LinkError, PostFork};
use protocol::{Hello, ToGuest, VERSION_MAX, VERSION_MIN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{
    PATIENCE, Target, command, frames, hello, identity, refused, run, start_spec, strings,
};

conformance! {
    nothing_works_before_the_start
    a_connection_recovers_from_any_rubbish
    a_hello_ends_the_sessions_before_it
    a_resume_gives_the_machine_its_identity
    a_post_fork_command_must_succeed
    the_end_of_the_program_is_told_until_acknowledged
    no_common_version_is_told
    a_dead_channel_is_noticed
}

async fn nothing_works_before_the_start(mut target: Target) {
    let (link, _events) = target.connect().await;
    assert_eq!(link.phase(), GuestPhase::Waiting);
    let mut output = link.exec(command(&["true"])).await.unwrap().split().1;
    // The input half is gone, but the refusal may have been on its way already.
    let error = output.next().await.unwrap_err();
    assert!(
        matches!(error, LinkError::Refused(_) | LinkError::Closed),
        "{error:?}"
    );
    refused(link.stat("/", false).await.unwrap_err(), FailureKind::Phase);
    refused(
        link.resume(identity("a"), PATIENCE).await.unwrap_err(),
        FailureKind::Phase,
    );
    refused(
        link.acknowledge_exit().await.unwrap_err(),
        FailureKind::Phase,
    );
    let mut short = start_spec(&["true"]);
    short.entropy.truncate(31);
    refused(
        link.start(short, PATIENCE).await.unwrap_err(),
        FailureKind::Invalid,
    );
    link.start(start_spec(&["sleep", "600"]), PATIENCE)
        .await
        .unwrap();
    assert!(matches!(link.phase(), GuestPhase::Started { .. }));
    refused(
        link.start(start_spec(&["sleep", "600"]), PATIENCE)
            .await
            .unwrap_err(),
        FailureKind::Phase,
    );
    link.quiesce(PATIENCE).await.unwrap();
}

async fn a_connection_recovers_from_any_rubbish(mut target: Target) {
    let whole = frames(&[
        hello(7),
        ToGuest::Start {
            call: 1,
            spec: Box::new(start_spec(&["sleep", "600"])),
        },
    ]);
    let mut rubbish = vec![0, 0, 1, 2, 3, 0];
    rubbish.extend_from_slice(&whole);
    rubbish.extend_from_slice(&whole[..whole.len() - 9]);
    target
        .stream
        .as_mut()
        .unwrap()
        .write_all(&rubbish)
        .await
        .unwrap();
    let (link, _events) = target.connect().await;
    assert!(
        matches!(link.phase(), GuestPhase::Started { .. }),
        "{:?}",
        link.phase()
    );
    assert_eq!(
        run(&link, command(&["echo", "in", "step"])).await.text(),
        "in step\n"
    );
}

async fn a_hello_ends_the_sessions_before_it(mut target: Target) {
    let flood = ExecSpec {
        argv: target.zeros(100 << 20),
        ..ExecSpec::default()
    };
    let before = frames(&[
        hello(7),
        ToGuest::Start {
            call: 1,
            spec: Box::new(start_spec(&["sleep", "600"])),
        },
        ToGuest::Exec {
            call: 2,
            spec: Box::new(flood),
        },
        ToGuest::Exec {
            call: 3,
            spec: Box::new(command(&["cat"])),
        },
    ]);
    target
        .stream
        .as_mut()
        .unwrap()
        .write_all(&before)
        .await
        .unwrap();
    let (link, _events) = target.connect().await;
    // The calls of the link use the same numbers: nothing of the old sessions may answer them.
    for _ in 0..5 {
        assert_eq!(
            run(&link, command(&["echo", "mine"])).await.text(),
            "mine\n"
        );
    }
}

async fn a_resume_gives_the_machine_its_identity(mut target: Target) {
    let before = frames(&[
        hello(7),
        ToGuest::Start {
            call: 1,
            spec: Box::new(start_spec(&["sleep", "600"])),
        },
    ]);
    target
        .stream
        .as_mut()
        .unwrap()
        .write_all(&before)
        .await
        .unwrap();
    let stream = target.stream.take().unwrap();
    let (link, _events) = Link::connect(stream, PATIENCE).await.unwrap();
    let report = link.resume(identity("web-2"), PATIENCE).await.unwrap();
    assert_eq!(report.hook, None);
    assert!(matches!(link.phase(), GuestPhase::Started { .. }));
    let env = run(&link, command(&["env"])).await;
    assert!(env.text().contains("FROM_IMAGE=yes"), "{env:?}");
    let mut weak = identity("web-3");
    weak.entropy.clear();
    refused(
        link.resume(weak, PATIENCE).await.unwrap_err(),
        FailureKind::Invalid,
    );
}

async fn a_post_fork_command_must_succeed(mut target: Target) {
    let link = target.started().await;
    let with = |argv: Vec<String>, timeout_ms| {
        let post_fork = Some(PostFork {
            argv,
            env: vec![],
            timeout_ms,
        });
        link.resume(
            guest::Identity {
                post_fork,
                ..identity("web-2")
            },
            PATIENCE,
        )
    };
    let report = with(strings(&["echo", "hooked"]), 20_000).await.unwrap();
    assert_eq!(report.hook.unwrap().output, b"hooked\n");
    refused(
        with(target.exit_with(3), 20_000).await.unwrap_err(),
        FailureKind::Invalid,
    );
    refused(
        with(strings(&["no-such-command"]), 20_000)
            .await
            .unwrap_err(),
        FailureKind::Invalid,
    );
    refused(
        with(strings(&["sleep", "600"]), 50).await.unwrap_err(),
        FailureKind::TimedOut,
    );
    with(strings(&["true"]), 20_000).await.unwrap();
}

async fn the_end_of_the_program_is_told_until_acknowledged(mut target: Target) {
    let (link, mut events) = target.connect().await;
    target.start_and_end_program(&link, 3).await;
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert_eq!(
        told,
        GuestEvent::ProgramExited {
            code: 3,
            signal: None,
            message: None
        }
    );
    assert!(matches!(link.phase(), GuestPhase::Exited(_)));
    link.acknowledge_exit().await.unwrap();
    tokio::time::timeout(PATIENCE, link.closed()).await.unwrap();
    assert_eq!(events.next().await, GuestEvent::Closed);
}

async fn no_common_version_is_told(mut target: Target) {
    let mut stream = target.stream.take().unwrap();
    let hello = ToGuest::Hello(Hello {
        nonce: 5,
        version_min: 900,
        version_max: 901,
    });
    stream
        .write_all(&frames(&[hello, ToGuest::Quiesce { call: 1 }]))
        .await
        .unwrap();
    let mut decoder = protocol::Decoder::<protocol::ToHost>::default();
    let mut buffer = [0; 200];
    let len = tokio::time::timeout(PATIENCE, stream.read(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let answer = decoder.decode(&mut &buffer[..len]);
    let expected = protocol::ToHost::HelloRefused {
        nonce: 5,
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
    };
    assert_eq!(answer, Some(Ok(expected)));
}

async fn a_dead_channel_is_noticed(mut target: Target) {
    let (link, mut events) = target.connect().await;
    link.start(start_spec(&["sleep", "600"]), PATIENCE)
        .await
        .unwrap();
    let (mut input, mut output) = link.exec(command(&["cat"])).await.unwrap().split();
    link.shutdown(None, Duration::from_secs(5)).await.unwrap();
    tokio::time::timeout(PATIENCE, link.closed()).await.unwrap();
    assert!(matches!(output.next().await, Err(LinkError::Closed)));
    assert!(matches!(input.write("x").await, Err(LinkError::Ended)));
    assert!(matches!(
        link.stat("/", false).await,
        Err(LinkError::Closed)
    ));
    while events.next().await != GuestEvent::Closed {}
}

/// An agent that answers the first hello by these contents of frames.
async fn answers(contents: impl FnOnce(u64) -> Vec<Vec<u8>>) -> LinkError {
    let (stream, mut agent) = UnixStream::pair().unwrap();
    let connect = tokio::spawn(Link::connect(stream, PATIENCE));
    let mut decoder = protocol::Decoder::<ToGuest>::default();
    let mut buffer = [0; 200];
    let nonce = loop {
        let len = agent.read(&mut buffer).await.unwrap();
        match decoder.decode(&mut &buffer[..len]) {
            Some(Ok(ToGuest::Hello(hello))) => break hello.nonce,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    };
    for mut content in contents(nonce) {
        content.extend(crc32fast::hash(&content).to_le_bytes());
        agent.write_all(&cobs::encode_vec(&content)).await.unwrap();
        agent.write_all(&[0]).await.unwrap();
    }
    // The agent stays: nothing but its answer ends the attempt.
    connect.await.unwrap().unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_another_version_is_refused_at_once() {
    let encode = |message: &protocol::ToHost| postcard::to_allocvec(message).unwrap();
    let refusal = |nonce| {
        vec![
            // What an older agent had still to say to the host before.
            vec![200, 1, 2, 3],
            encode(&protocol::ToHost::HelloRefused {
                nonce,
                version_min: 1,
                version_max: 1,
            }),
        ]
    };
    let error = answers(refusal).await;
    assert!(
        matches!(error, LinkError::Version { min: 1, max: 1 }),
        "{error:?}"
    );
    assert!(error.to_string().contains("another version"), "{error}");

    let acknowledgement = |nonce, version| {
        encode(&protocol::ToHost::HelloAck(protocol::HelloAck {
            nonce,
            version,
            agent: "old".into(),
            phase: GuestPhase::Waiting,
            frozen: false,
        }))
    };
    let error = answers(|nonce| vec![acknowledgement(nonce, 1)]).await;
    assert!(
        matches!(error, LinkError::Version { min: 1, max: 1 }),
        "{error:?}"
    );
    // As it was before it said whether the machine is frozen.
    let error = answers(|nonce| {
        let mut short = acknowledgement(nonce, 1);
        short.pop();
        vec![short]
    })
    .await;
    assert!(matches!(error, LinkError::Stranger), "{error:?}");
    assert!(error.to_string().contains("another version"), "{error}");
}
