//! Standing still: quiesce, thaw, resume.

use std::time::{Duration, Instant};

use guest::fake::FakeAgent;
use guest::{
    ExecSpec, ExitStatus, FailureKind, GuestEvent, Identity, Link, PathInfo, PostFork, UploadKind,
    UploadSpec,
};
use protocol::ToGuest;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::support::{
    PATIENCE, Target, command, frames, hello, identity, read_all, refused, run, start_spec, strings,
};

conformance! {
    programs_stand_still_until_the_thaw
    a_frozen_machine_refuses_changes
    a_new_host_hears_of_the_frost
    a_resume_thaws_before_its_hook
    a_failed_resume_thaws_nothing
    a_shutdown_thaws
    only_a_frozen_machine_rehearses
}

/// That nothing happens cannot be waited for. A file that grows does so a hundred times in this time.
const STILL: Duration = Duration::from_millis(100);

async fn size(link: &Link, path: &str) -> u64 {
    match link.stat(path, false).await.unwrap() {
        PathInfo::Found(facts) => facts.size,
        _ => 0,
    }
}

/// Waits until the file is longer than it was.
async fn grows(link: &Link, path: &str, than: u64) {
    let begun = Instant::now();
    while size(link, path).await <= than {
        assert!(begun.elapsed() < PATIENCE, "the file stays as it is");
    }
}

async fn stays(link: &Link, path: &str) -> u64 {
    let before = size(link, path).await;
    tokio::time::sleep(STILL).await;
    assert_eq!(size(link, path).await, before);
    before
}

async fn programs_stand_still_until_the_thaw(mut target: Target) {
    let link = target.started().await;
    let path = target.path("growing");
    let grow = ExecSpec {
        argv: target.grow(&path),
        ..ExecSpec::default()
    };
    let (mut input, output) = link.exec(grow).await.unwrap().split();
    grows(&link, &path, 0).await;

    link.quiesce(PATIENCE).await.unwrap();
    assert!(link.frozen());
    let before = stays(&link, &path).await;
    link.quiesce(PATIENCE).await.unwrap();
    link.thaw(PATIENCE).await.unwrap();
    assert!(!link.frozen());
    grows(&link, &path, before).await;
    link.thaw(PATIENCE).await.unwrap();

    // The same with a resume, and what is killed while it stands still is gone.
    link.quiesce(PATIENCE).await.unwrap();
    let before = stays(&link, &path).await;
    link.resume(identity("web-2"), PATIENCE).await.unwrap();
    assert!(!link.frozen());
    grows(&link, &path, before).await;
    link.quiesce(PATIENCE).await.unwrap();
    input.signal(9).await.unwrap();
    assert_eq!(read_all(output).await.status, ExitStatus::killed(9));
}

async fn a_frozen_machine_refuses_changes(mut target: Target) {
    let (link, _events) = target.connect().await;
    link.quiesce(PATIENCE).await.unwrap();
    let spec = start_spec(&["sleep", "600"]);
    refused(
        link.start(spec.clone(), PATIENCE).await.unwrap_err(),
        FailureKind::Phase,
    );
    link.thaw(PATIENCE).await.unwrap();
    link.start(spec, PATIENCE).await.unwrap();

    link.quiesce(PATIENCE).await.unwrap();
    let (_input, mut output) = link.exec(command(&["true"])).await.unwrap().split();
    refused(output.next().await.unwrap_err(), FailureKind::Phase);
    let path = target.path("new");
    let upload = UploadSpec {
        path: path.clone(),
        kind: UploadKind::File,
        mode: None,
        owner: None,
        mtime: None,
    };
    let upload = link.upload(upload).await.unwrap();
    refused(upload.finish().await.unwrap_err(), FailureKind::Phase);
    assert_eq!(link.stat(path, false).await.unwrap(), PathInfo::Missing);
    link.thaw(PATIENCE).await.unwrap();
    assert_eq!(run(&link, command(&["echo", "on"])).await.text(), "on\n");
}

/// What a host that went away left: a machine that stands still.
async fn left_frozen(target: &mut Target) -> UnixStream {
    let mut stream = target.stream.take().unwrap();
    let spec = Box::new(start_spec(&["sleep", "600"]));
    let left = frames(&[
        hello(7),
        ToGuest::Start { call: 1, spec },
        ToGuest::Quiesce { call: 2 },
    ]);
    stream.write_all(&left).await.unwrap();
    stream
}

async fn a_new_host_hears_of_the_frost(mut target: Target) {
    let stream = left_frozen(&mut target).await;
    let (link, _events) = Link::connect(stream, PATIENCE).await.unwrap();
    assert!(link.frozen());
    link.thaw(PATIENCE).await.unwrap();
    assert!(!link.frozen());
    assert_eq!(run(&link, command(&["echo", "on"])).await.text(), "on\n");
}

async fn a_resume_thaws_before_its_hook(mut target: Target) {
    let stream = left_frozen(&mut target).await;
    let post_fork = Some(PostFork {
        argv: strings(&["echo", "hooked"]),
        env: vec![],
        timeout_ms: 20_000,
    });
    let identity = Identity {
        post_fork,
        ..identity("web-2")
    };
    let (link, _events) = Link::connect(stream, PATIENCE).await.unwrap();
    let report = link.resume(identity, PATIENCE).await.unwrap();
    assert_eq!(report.hook.unwrap().output, b"hooked\n");
    assert!(!link.frozen());
}

async fn a_failed_resume_thaws_nothing(mut target: Target) {
    let link = target.started().await;
    link.quiesce(PATIENCE).await.unwrap();
    let mut weak = identity("web-2");
    weak.entropy.clear();
    refused(
        link.resume(weak, PATIENCE).await.unwrap_err(),
        FailureKind::Invalid,
    );
    assert!(link.frozen());
    let (_input, mut output) = link.exec(command(&["true"])).await.unwrap().split();
    refused(output.next().await.unwrap_err(), FailureKind::Phase);
}

async fn a_shutdown_thaws(mut target: Target) {
    let (link, mut events) = target.connect().await;
    link.start(start_spec(&["sleep", "600"]), PATIENCE)
        .await
        .unwrap();
    link.quiesce(PATIENCE).await.unwrap();
    // Without a thaw the program would last until it is killed.
    link.shutdown(Some(15), Duration::from_secs(600))
        .await
        .unwrap();
    let told = tokio::time::timeout(PATIENCE, events.next()).await.unwrap();
    assert!(
        matches!(
            told,
            GuestEvent::ProgramExited {
                signal: Some(15),
                ..
            }
        ),
        "{told:?}"
    );
}

async fn only_a_frozen_machine_rehearses(mut target: Target) {
    let (link, _events) = target.connect().await;
    link.quiesce(PATIENCE).await.unwrap();
    refused(
        link.rehearse(PATIENCE).await.unwrap_err(),
        FailureKind::Phase,
    );
    link.thaw(PATIENCE).await.unwrap();
    link.start(start_spec(&["sleep", "600"]), PATIENCE)
        .await
        .unwrap();
    refused(
        link.rehearse(PATIENCE).await.unwrap_err(),
        FailureKind::Phase,
    );

    let path = target.path("growing");
    let grow = ExecSpec {
        argv: target.grow(&path),
        ..ExecSpec::default()
    };
    let _session = link.exec(grow).await.unwrap();
    grows(&link, &path, 0).await;
    link.quiesce(PATIENCE).await.unwrap();
    let before = stays(&link, &path).await;
    link.rehearse(PATIENCE).await.unwrap();
    link.rehearse(PATIENCE).await.unwrap();
    assert!(link.frozen());
    assert_eq!(stays(&link, &path).await, before);

    link.resume(identity("web-2"), PATIENCE).await.unwrap();
    grows(&link, &path, before).await;
    assert_eq!(run(&link, command(&["echo", "on"])).await.text(), "on\n");
    refused(
        link.rehearse(PATIENCE).await.unwrap_err(),
        FailureKind::Phase,
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn forks_of_a_fake_are_frozen_and_draw_numbers_of_their_own() {
    let (stream, theirs) = UnixStream::pair().unwrap();
    let source = FakeAgent::new();
    let served = source.clone();
    tokio::spawn(async move { served.serve(theirs).await });
    let (link, _events) = Link::connect(stream, PATIENCE).await.unwrap();
    link.start(start_spec(&["sleep", "600"]), PATIENCE)
        .await
        .unwrap();
    link.quiesce(PATIENCE).await.unwrap();
    let image = source.save();

    let random_of_fork = async |entropy: u8| {
        let fork = FakeAgent::load(&image).unwrap();
        assert!(fork.is_frozen());
        let (stream, theirs) = UnixStream::pair().unwrap();
        let served = fork.clone();
        tokio::spawn(async move { served.serve(theirs).await });
        let identity = Identity {
            entropy: vec![entropy; guest::MIN_ENTROPY],
            ..identity("fork")
        };
        let (link, _events) = Link::connect(stream, PATIENCE).await.unwrap();
        link.resume(identity, PATIENCE).await.unwrap();
        run(&link, command(&["random"])).await.stdout
    };
    let (one, other) = (random_of_fork(1).await, random_of_fork(2).await);
    assert_ne!(one, other);
    assert_eq!(random_of_fork(1).await, one, "nothing else differs");
}
