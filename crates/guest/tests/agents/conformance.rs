//! What every agent must do, checked on the fake and on the real server alike.

use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Target, command, finish, identity, read_all, run, start_spec};
use guest::{
    DownloadItem, EntryKind, ExecSpec, ExitStatus, FailureKind, GuestEvent, GuestPhase, Link,
    LinkError, Owner, PathInfo, PathKind, PostFork, UploadKind, UploadSpec,
};
use protocol::{Hello, ToGuest, encode};
use tokio::io::AsyncWriteExt;

macro_rules! conformance {
    ($($name:ident)*) => {
        mod fake {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Target::fake()).await; })*
        }
        mod real {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Target::real()).await; })*
        }
    };
}

conformance! {
    nothing_works_before_the_start
    output_streams_stay_apart
    input_ends
    commands_end_with_their_code
    time_limits_kill
    signals_reach_the_command
    a_slow_reader_stops_only_itself
    much_input_meets_much_output
    dropped_sessions_make_room
    too_many_sessions_are_refused
    files_make_the_round_trip
    uploads_replace_only_what_they_may
    an_unfinished_upload_leaves_nothing
    paths_are_described
    a_connection_recovers_from_any_rubbish
    a_hello_ends_the_sessions_before_it
    a_resume_takes_one_round_trip
    a_post_fork_command_must_succeed
    the_end_of_the_program_is_told_until_acknowledged
    no_common_version_is_told
    a_dead_channel_is_noticed
}

#[track_caller]
fn refused(error: LinkError, kind: FailureKind) {
    assert_eq!(
        error.failure().unwrap_or_else(|| panic!("{error:?}")).kind,
        kind,
        "{error:?}"
    );
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

fn upload(path: &str, kind: UploadKind) -> UploadSpec {
    UploadSpec {
        path: path.to_owned(),
        kind,
        mode: None,
        owner: None,
        mtime: None,
    }
}

async fn put(link: &Link, spec: UploadSpec, content: &[u8]) -> Result<u64, LinkError> {
    let mut upload = link.upload(spec).await?;
    upload.write(content.to_vec()).await?;
    upload.finish().await
}

async fn files_make_the_round_trip(mut target: Target) {
    let link = target.started().await;
    let big: Vec<u8> = (0..700_000_u32)
        .map(|number| (number % 253) as u8)
        .collect();
    let top = target.path("tree");
    // Tests need not be root, so files are given to whoever owns the directory already.
    let owner = Some(Owner::default()).filter(|_| rustix_is_root());
    let file = UploadSpec {
        mode: Some(0o640),
        owner,
        mtime: Some(1_000_000_007),
        ..upload(&format!("{top}/deep/big"), UploadKind::File)
    };
    assert_eq!(put(&link, file, &big).await.unwrap(), big.len() as u64);
    assert_eq!(
        put(
            &link,
            upload(&format!("{top}/empty"), UploadKind::File),
            b""
        )
        .await
        .unwrap(),
        0
    );
    let directory = UploadSpec {
        mode: Some(0o711),
        ..upload(&format!("{top}/dir"), UploadKind::Directory)
    };
    assert_eq!(put(&link, directory, b"").await.unwrap(), 0);
    let symlink = upload(
        &format!("{top}/link"),
        UploadKind::Symlink {
            target: "deep/big".into(),
        },
    );
    assert_eq!(put(&link, symlink, b"").await.unwrap(), 0);

    let mut entries = download(&link, &top, false).await;
    assert_eq!(entries[0].0.path, "tree", "parents come first");
    entries.sort_by(|one, other| one.0.path.cmp(&other.0.path));
    let shape: Vec<(&str, EntryKind, u32)> = entries
        .iter()
        .map(|(header, _)| (header.path.as_str(), header.kind.clone(), header.mode))
        .collect();
    let file = |size| EntryKind::File { size };
    assert_eq!(
        shape,
        [
            ("tree", EntryKind::Directory, 0o755),
            ("tree/deep", EntryKind::Directory, 0o755),
            ("tree/deep/big", file(big.len() as u64), 0o640),
            ("tree/dir", EntryKind::Directory, 0o711),
            ("tree/empty", file(0), 0o644),
            (
                "tree/link",
                EntryKind::Symlink {
                    target: "deep/big".into()
                },
                0o777
            ),
        ]
    );
    assert!(entries[2].1 == big && entries[2].0.mtime == 1_000_000_007);
    let followed = download(&link, &format!("{top}/link"), true).await;
    assert!(followed.len() == 1 && followed[0].0.path == "link" && followed[0].1 == big);
}

fn rustix_is_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

async fn download(link: &Link, path: &str, follow: bool) -> Vec<(guest::EntryHeader, Vec<u8>)> {
    let mut download = link.download(path, follow).await.unwrap();
    let mut entries = Vec::new();
    let mut ended = None;
    while let Some(item) = download.next().await.unwrap() {
        assert_ne!(ended, Some(true), "nothing follows the last end");
        match item {
            DownloadItem::Entry(header) => entries.push((header, Vec::new())),
            DownloadItem::Data(bytes) => entries.last_mut().unwrap().1.extend_from_slice(&bytes),
            DownloadItem::End { last } => ended = Some(last),
        }
    }
    assert_eq!(ended, Some(true));
    entries
}

async fn uploads_replace_only_what_they_may(mut target: Target) {
    let link = target.started().await;
    let (file, directory) = (target.path("file"), target.path("directory"));
    put(
        &link,
        UploadSpec {
            mode: Some(0o600),
            ..upload(&file, UploadKind::File)
        },
        b"old",
    )
    .await
    .unwrap();
    put(&link, upload(&directory, UploadKind::Directory), b"")
        .await
        .unwrap();
    put(&link, upload(&directory, UploadKind::Directory), b"")
        .await
        .unwrap();

    let error = put(&link, upload(&directory, UploadKind::File), b"x")
        .await
        .unwrap_err();
    refused(error, FailureKind::IsDirectory);
    let error = put(&link, upload(&file, UploadKind::Directory), b"")
        .await
        .unwrap_err();
    refused(error, FailureKind::NotDirectory);
    let error = put(
        &link,
        upload(&format!("{file}/below"), UploadKind::File),
        b"x",
    )
    .await
    .unwrap_err();
    refused(error, FailureKind::NotDirectory);
    let error = put(&link, upload("relative", UploadKind::File), b"x")
        .await
        .unwrap_err();
    refused(error, FailureKind::Invalid);

    put(&link, upload(&file, UploadKind::File), b"new")
        .await
        .unwrap();
    let entries = download(&link, &file, false).await;
    assert!(
        entries[0].1 == b"new" && entries[0].0.mode == 0o600,
        "the mode of what was replaced stays: {entries:?}"
    );
}

async fn an_unfinished_upload_leaves_nothing(mut target: Target) {
    let link = target.started().await;
    let path = target.path("kept");
    put(&link, upload(&path, UploadKind::File), b"kept")
        .await
        .unwrap();
    let mut broken = link.upload(upload(&path, UploadKind::File)).await.unwrap();
    broken.write("half").await.unwrap();
    drop(broken);
    let entries = download(&link, &target.path(""), false).await;
    let files: Vec<&[u8]> = entries
        .iter()
        .filter(|(header, _)| header.kind != EntryKind::Directory)
        .map(|(_, content)| &content[..])
        .collect();
    assert_eq!(files, [b"kept"]);
}

async fn paths_are_described(mut target: Target) {
    let link = target.started().await;
    let (file, symlink) = (target.path("file"), target.path("link"));
    put(
        &link,
        UploadSpec {
            mode: Some(0o4750),
            ..upload(&file, UploadKind::File)
        },
        b"four",
    )
    .await
    .unwrap();
    put(
        &link,
        upload(
            &symlink,
            UploadKind::Symlink {
                target: file.clone(),
            },
        ),
        b"",
    )
    .await
    .unwrap();
    let facts = |info| match info {
        PathInfo::Found(facts) => facts,
        other => panic!("{other:?}"),
    };
    let described = facts(link.stat(&file, false).await.unwrap());
    assert_eq!(
        (described.kind, described.mode, described.size),
        (PathKind::File, 0o4750, 4)
    );
    let described = facts(link.stat(&symlink, false).await.unwrap());
    assert_eq!(
        (described.kind, described.link_target),
        (PathKind::Symlink, Some(file.clone()))
    );
    assert_eq!(
        facts(link.stat(&symlink, true).await.unwrap()).kind,
        PathKind::File
    );
    assert_eq!(
        facts(link.stat("/", false).await.unwrap()).kind,
        PathKind::Directory
    );
    assert_eq!(
        link.stat(target.path("missing"), false).await.unwrap(),
        PathInfo::Missing
    );
    refused(
        link.stat("relative", false).await.unwrap_err(),
        FailureKind::Invalid,
    );
}

fn frames(messages: &[ToGuest]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        encode(message, &mut out).unwrap();
    }
    out
}

fn hello(nonce: u64) -> ToGuest {
    ToGuest::Hello(Hello {
        nonce,
        version_min: 1,
        version_max: 1,
    })
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

async fn a_resume_takes_one_round_trip(mut target: Target) {
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
    let (link, _events, report) = Link::connect_and_resume(stream, identity("web-2"), PATIENCE)
        .await
        .unwrap();
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
    let report = with(crate::support::strings(&["echo", "hooked"]), 20_000)
        .await
        .unwrap();
    assert_eq!(report.hook.unwrap().output, b"hooked\n");
    refused(
        with(target.exit_with(3), 20_000).await.unwrap_err(),
        FailureKind::Invalid,
    );
    refused(
        with(crate::support::strings(&["no-such-command"]), 20_000)
            .await
            .unwrap_err(),
        FailureKind::Invalid,
    );
    refused(
        with(crate::support::strings(&["sleep", "600"]), 50)
            .await
            .unwrap_err(),
        FailureKind::TimedOut,
    );
    with(crate::support::strings(&["true"]), 20_000)
        .await
        .unwrap();
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
    use tokio::io::AsyncReadExt;
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
        version_min: 1,
        version_max: 1,
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
