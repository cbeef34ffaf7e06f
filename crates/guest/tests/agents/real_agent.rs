//! What only the real agent can do, checked against its server running on this host.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Target, command, finish, read_all, run, start_spec, strings};
use guest::{ExecSpec, ExitStatus, GuestEvent, LinkError, Output, StartSpec, TerminalSize};

fn shell(script: &str) -> ExecSpec {
    command(&["sh", "-c", script])
}

async fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_alive(pid: &str) -> bool {
    // A process that has ended but was not waited for is a zombie, not alive.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_inherit_from_the_program() {
    let mut target = Target::real();
    let (link, _events) = target.connect().await;
    let workdir = target.path("made/on/start");
    let env = vec![("A".into(), "image".into()), ("B".into(), "image".into())];
    let spec = StartSpec {
        workdir: workdir.clone(),
        env,
        ..start_spec(&["sleep", "600"])
    };
    link.start(spec, PATIENCE).await.unwrap();

    let spec = ExecSpec {
        env: vec![("B".into(), "request".into())],
        ..shell("pwd; echo $A $B $HOSTNAME $PATH")
    };
    let said = run(&link, spec).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        said.text(),
        format!("{workdir}\nimage request box {path}\n")
    );

    let said = run(
        &link,
        ExecSpec {
            cwd: Some("/".into()),
            ..command(&["pwd"])
        },
    )
    .await;
    assert_eq!(said.text(), "/\n");
    let said = run(
        &link,
        ExecSpec {
            cwd: Some(target.path("missing")),
            ..command(&["pwd"])
        },
    )
    .await;
    assert_eq!(said.status, ExitStatus::exited(126));
    let (_input, mut output) = link
        .exec(ExecSpec {
            user: Some("no-such-user".into()),
            ..command(&["id"])
        })
        .await
        .unwrap()
        .split();
    assert!(matches!(output.next().await, Err(LinkError::Refused(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unusable_file_ends_with_126() {
    let mut target = Target::real();
    let link = target.started().await;
    let path = target.path("plain");
    std::fs::write(&path, "no program").unwrap();
    let said = run(&link, command(&[&path])).await;
    assert_eq!(said.status, ExitStatus::exited(126));
    assert_eq!(
        String::from_utf8_lossy(&said.stderr),
        format!("coppice: {path}: permission denied\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_a_terminal() {
    let mut target = Target::real();
    let link = target.started().await;
    let tty = Some(TerminalSize {
        rows: 33,
        cols: 101,
    });
    let script = "stty size; trap 'stty size; exit 5' WINCH; echo ready; while :; do read line; echo got $line; done";
    let (mut input, mut output) = link
        .exec(ExecSpec {
            tty,
            ..shell(script)
        })
        .await
        .unwrap()
        .split();
    let mut seen = String::new();
    let mut next = async |until: &str| {
        while !seen.contains(until) {
            match tokio::time::timeout(PATIENCE, output.next())
                .await
                .unwrap()
                .unwrap()
            {
                Some(Output::Stdout(bytes)) => seen.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Output::Exit(status)) => return Some(status),
                other => panic!("{other:?}"),
            }
        }
        None
    };
    assert_eq!(next("ready").await, None);
    input.write("hello\n").await.unwrap();
    assert_eq!(next("got hello").await, None);
    input
        .resize(TerminalSize { rows: 44, cols: 55 })
        .await
        .unwrap();
    // The shell runs its trap when the read it is in has ended.
    input.write("\n").await.unwrap();
    assert_eq!(next("never").await, Some(ExitStatus::exited(5)));
    assert!(seen.contains("33 101") && seen.contains("44 55"), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn end_of_input_reaches_a_terminal() {
    let mut target = Target::real();
    let link = target.started().await;
    let session = link
        .exec(ExecSpec {
            tty: Some(TerminalSize::default()),
            ..command(&["cat"])
        })
        .await
        .unwrap();
    assert_eq!(finish(session).await.status, ExitStatus::exited(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_child_does_not_keep_the_session_open() {
    let mut target = Target::real();
    let link = target.started().await;
    let begun = Instant::now();
    let said = run(
        &link,
        shell("sleep 600 & echo $!; head -c 50000 /dev/zero; exit 3"),
    )
    .await;
    assert!(begun.elapsed() < PATIENCE);
    let (pid, zeros) = said
        .stdout
        .split_at(said.stdout.iter().position(|byte| *byte == b'\n').unwrap());
    assert_eq!((zeros.len(), said.status), (50_001, ExitStatus::exited(3)));
    assert!(is_alive(str::from_utf8(pid).unwrap()), "it was left alone");
    run(&link, command(&["kill", str::from_utf8(pid).unwrap()])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_limit_kills_the_whole_group() {
    let mut target = Target::real();
    let link = target.started().await;
    let spec = ExecSpec {
        timeout_ms: Some(300),
        ..shell("sleep 600 & echo $!; wait")
    };
    let said = run(&link, spec).await;
    assert!(said.status.timed_out);
    let pid = said.text().trim().to_owned();
    wait_until("the child is killed", || !is_alive(&pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_session_kills_its_command() {
    let mut target = Target::real();
    let link = target.started().await;
    let (input, mut output) = link
        .exec(shell("echo $$; sleep 600"))
        .await
        .unwrap()
        .split();
    let Some(Output::Stdout(pid)) = output.next().await.unwrap() else {
        panic!("no output")
    };
    let pid = String::from_utf8_lossy(&pid).trim().to_owned();
    assert!(is_alive(&pid));
    drop(input);
    wait_until("the command is killed", || !is_alive(&pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_kills_its_commands() {
    let mut target = Target::real();
    let link = target.started().await;
    let (input, mut output) = link
        .exec(shell("echo $$; sleep 600"))
        .await
        .unwrap()
        .split();
    let Some(Output::Stdout(pid)) = output.next().await.unwrap() else {
        panic!("no output")
    };
    let pid = String::from_utf8_lossy(&pid).trim().to_owned();
    drop((link, input, output));
    wait_until("the command is killed", || !is_alive(&pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_of_the_program_goes_to_the_log() {
    let (mut log, writer) = std::io::pipe().unwrap();
    let mut target = Target::real_with_log(Some(OwnedFd::from(writer)));
    let (link, mut events) = target.connect().await;
    let spec = StartSpec {
        argv: strings(&["sh", "-c", "echo out; echo err >&2; kill -9 $$"]),
        ..start_spec(&[])
    };
    link.start(spec, PATIENCE).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    let message = Some("killed by signal 9".into());
    assert_eq!(
        told,
        GuestEvent::ProgramExited {
            code: 137,
            signal: Some(9),
            message
        }
    );
    link.acknowledge_exit().await.unwrap();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text, "out\nerr\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_run_has_exited() {
    let (mut log, writer) = std::io::pipe().unwrap();
    let mut target = Target::real_with_log(Some(OwnedFd::from(writer)));
    let (link, mut events) = target.connect().await;
    let started = link
        .start(start_spec(&["no-such-program"]), PATIENCE)
        .await
        .unwrap();
    assert_eq!(started.pid, 0);
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    let message = Some("no-such-program: not found".into());
    assert_eq!(
        told,
        GuestEvent::ProgramExited {
            code: 127,
            signal: None,
            message
        }
    );
    link.shutdown(None, Duration::from_secs(1)).await.unwrap();
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert_eq!(text, "coppice: no-such-program: not found\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_asks_first_and_kills_after() {
    let (mut log, writer) = std::io::pipe().unwrap();
    let mut target = Target::real_with_log(Some(OwnedFd::from(writer)));
    let (link, mut events) = target.connect().await;
    let polite = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let argv = strings(&["sh", "-c", polite]);
    link.start(
        StartSpec {
            argv,
            ..start_spec(&[])
        },
        PATIENCE,
    )
    .await
    .unwrap();
    log.read_exact(&mut [0; 6]).unwrap();
    link.shutdown(None, PATIENCE).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(
        matches!(told, GuestEvent::ProgramExited { code: 7, .. }),
        "{told:?}"
    );

    let (mut log, writer) = std::io::pipe().unwrap();
    let mut target = Target::real_with_log(Some(OwnedFd::from(writer)));
    let (link, mut events) = target.connect().await;
    let argv = strings(&["sh", "-c", "trap '' TERM; echo ready; exec sleep 600"]);
    link.start(
        StartSpec {
            argv,
            ..start_spec(&[])
        },
        PATIENCE,
    )
    .await
    .unwrap();
    log.read_exact(&mut [0; 6]).unwrap();
    link.shutdown(Some(15), Duration::from_millis(100))
        .await
        .unwrap();
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(
        matches!(
            told,
            GuestEvent::ProgramExited {
                signal: Some(9 | 15),
                ..
            }
        ),
        "{told:?}"
    );
    tokio::time::timeout(PATIENCE, link.closed()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_with_a_loop_is_refused_when_links_are_followed() {
    let mut target = Target::real();
    let link = target.started().await;
    std::fs::create_dir(target.path("top")).unwrap();
    std::os::unix::fs::symlink(".", target.path("top/self")).unwrap();
    let mut download = link.download(target.path("top"), true).await.unwrap();
    let error = loop {
        match download.next().await {
            Ok(item) => assert!(item.is_some(), "the loop was not noticed"),
            Err(error) => break error,
        }
    };
    assert!(
        error.failure().unwrap().message.contains("leads back"),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_windows_of_output_wait_for_the_reader() {
    let mut target = Target::real();
    let link = target.started().await;
    let (_input, output) = link
        .exec(shell(
            "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2",
        ))
        .await
        .unwrap()
        .split();
    // A command that runs to its end beside it shows that the first one has filled its window by
    // then.
    run(&link, shell("sleep 0.1")).await;
    let said = read_all(output).await;
    assert_eq!(
        (said.stdout.len(), said.stderr.len()),
        (1_000_000, 1_000_000)
    );
}
