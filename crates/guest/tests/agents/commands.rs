//! Commands: streams, input, exit codes, limits, credit.

use std::time::Instant;

use guest::{ExecSpec, ExitStatus, FailureKind, LinkError};

use crate::support::{PATIENCE, Target, command, finish, read_all, refused, run};

conformance! {
    output_streams_stay_apart
    input_ends
    commands_end_with_their_code
    time_limits_kill
    signals_reach_the_command
    a_slow_reader_stops_only_itself
    much_input_meets_much_output
    dropped_sessions_make_room
    too_many_sessions_are_refused
}

async fn output_streams_stay_apart(mut target: Target) {
    let link = target.started().await;
    let said = run(&link, command(&["echo", "two", "words"])).await;
    assert_eq!(
        (said.text(), &said.stderr[..], said.status),
        ("two words\n", &b""[..], ExitStatus::exited(0))
    );
    let said = run(&link, command(&["cat", &target.path("missing")])).await;
    assert_eq!((&said.stdout[..], said.status.code), (&b""[..], 1));
    assert!(
        String::from_utf8_lossy(&said.stderr).contains("No such file"),
        "{said:?}"
    );
}

async fn input_ends(mut target: Target) {
    let link = target.started().await;
    let (mut input, output) = link.exec(command(&["cat"])).await.unwrap().split();
    input.write("first ").await.unwrap();
    input.write("second").await.unwrap();
    input.eof().await.unwrap();
    let said = read_all(output).await;
    assert_eq!(
        (said.text(), said.status),
        ("first second", ExitStatus::exited(0))
    );
    assert!(matches!(input.write("late").await, Err(LinkError::Ended)));
}

async fn commands_end_with_their_code(mut target: Target) {
    let link = target.started().await;
    for code in [0, 1, 42, 255] {
        let spec = ExecSpec {
            argv: target.exit_with(code),
            ..ExecSpec::default()
        };
        assert_eq!(run(&link, spec).await.status, ExitStatus::exited(code));
    }
    let said = run(&link, command(&["no-such-command"])).await;
    assert_eq!(said.status, ExitStatus::exited(127));
    assert_eq!(
        String::from_utf8_lossy(&said.stderr),
        "coppice: no-such-command: not found\n"
    );
}

async fn time_limits_kill(mut target: Target) {
    let link = target.started().await;
    let begun = Instant::now();
    let said = run(
        &link,
        ExecSpec {
            timeout_ms: Some(100),
            ..command(&["sleep", "600"])
        },
    )
    .await;
    assert_eq!(
        said.status,
        ExitStatus {
            code: 124,
            signal: Some(9),
            timed_out: true
        }
    );
    assert!(begun.elapsed() < PATIENCE);
}

async fn signals_reach_the_command(mut target: Target) {
    let link = target.started().await;
    let (mut input, output) = link.exec(command(&["sleep", "600"])).await.unwrap().split();
    input.signal(15).await.unwrap();
    assert_eq!(read_all(output).await.status, ExitStatus::killed(15));
}

async fn a_slow_reader_stops_only_itself(mut target: Target) {
    const COUNT: usize = 3 << 20;
    let link = target.started().await;
    let spec = ExecSpec {
        argv: target.zeros(COUNT),
        ..ExecSpec::default()
    };
    let slow = link.exec(spec).await.unwrap();
    for _ in 0..20 {
        assert_eq!(
            run(&link, command(&["echo", "quick"])).await.text(),
            "quick\n"
        );
    }
    let said = finish(slow).await;
    assert_eq!(
        (said.stdout.len(), said.status),
        (COUNT, ExitStatus::exited(0))
    );
}

async fn much_input_meets_much_output(mut target: Target) {
    let link = target.started().await;
    let (mut input, output) = link.exec(command(&["cat"])).await.unwrap().split();
    let data: Vec<u8> = (0..2_000_000_u32)
        .map(|number| (number % 251) as u8)
        .collect();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        input.write(sent).await.unwrap();
        input.eof().await.unwrap();
        input
    });
    let said = read_all(output).await;
    assert!(said.stdout == data && said.status == ExitStatus::exited(0));
    writer.await.unwrap();
}

async fn dropped_sessions_make_room(mut target: Target) {
    let link = target.started().await;
    for _ in 0..protocol::MAX_SESSIONS + 8 {
        drop(link.exec(command(&["sleep", "600"])).await.unwrap());
    }
    assert_eq!(
        run(&link, command(&["echo", "room"])).await.text(),
        "room\n"
    );
}

async fn too_many_sessions_are_refused(mut target: Target) {
    let link = target.started().await;
    let mut sessions = Vec::new();
    for _ in 0..protocol::MAX_SESSIONS {
        sessions.push(link.exec(command(&["sleep", "600"])).await.unwrap());
    }
    let (_input, mut output) = link.exec(command(&["true"])).await.unwrap().split();
    refused(output.next().await.unwrap_err(), FailureKind::Limit);
    sessions.pop();
    assert_eq!(
        run(&link, command(&["true"])).await.status,
        ExitStatus::exited(0)
    );
}
