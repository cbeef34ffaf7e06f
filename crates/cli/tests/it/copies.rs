//! Copies, over the websocket.

use std::path::Path;
use std::sync::Arc;

use api::cp::{CpDirection, CpEnd, CpError, CpHeader, CpResult, CpServerFrame, CpStart};
use api::instances::PathInfo;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::Uri;
use axum::response::Response;

use crate::cli::{coppice_at, transcript, write_down};
use crate::server::{Script, Shared};

/// Plays a guest that takes everything except below `/full`, and has `/src`.
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let Some(Ok(Message::Text(first))) = socket.recv().await else {
            panic!("no first frame");
        };
        let start: CpStart = serde_json::from_str(&first).expect("a first frame");
        match start.direction {
            CpDirection::To => take(&mut socket, &shared, &start).await,
            CpDirection::From => {
                shared.note(format!("{uri} {first}"));
                give(&mut socket, &start).await;
            }
            CpDirection::Stat => panic!("not asked for"),
        }
    })
}

async fn take(socket: &mut WebSocket, shared: &Shared, start: &CpStart) {
    if start.guest_path == "/refused/big" {
        let _ = socket.recv().await;
        let refusal = CpServerFrame::Error(CpError {
            message: "no such user".to_owned(),
            path: None,
        });
        // It is left open, as by a server that does not read any further.
        send(socket, &refusal).await;
        return std::future::pending().await;
    }
    let mut content = Vec::new();
    loop {
        match socket.recv().await.expect("a frame").expect("no error") {
            Message::Binary(data) => content.extend_from_slice(&data),
            Message::Text(end) => {
                assert_eq!(end.as_str(), r#"{"type":"end"}"#);
                break;
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    let kind = if start.is_dir == Some(true) {
        "dir"
    } else {
        "file"
    };
    let mode = start.mode.unwrap_or_default();
    let shown = String::from_utf8_lossy(&content[..content.len().min(20)]).into_owned();
    shared.note(format!("{kind} {} {mode:o} {shown:?}", start.guest_path));
    let full = start.guest_path.starts_with("/full");
    send(
        socket,
        &CpServerFrame::Result(CpResult {
            success: !full,
            bytes_written: if full { 0 } else { content.len() as u64 },
            error: full.then(|| "no space left".to_owned()),
        }),
    )
    .await;
}

async fn give(socket: &mut WebSocket, start: &CpStart) {
    if start.guest_path != "/src" {
        let error = CpError {
            message: "no such file or directory".to_owned(),
            path: Some(start.guest_path.clone()),
        };
        return send(socket, &CpServerFrame::Error(error)).await;
    }
    let entry = |path: &str, is_dir, size| CpHeader {
        path: path.to_owned(),
        mode: if is_dir { 0o755 } else { 0o600 },
        is_dir,
        size,
        mtime: 1_700_000_000,
        ..CpHeader::default()
    };
    let big = 100_000;
    for (header, last) in [
        (entry("src", true, 4096), false),
        (entry("src/big", false, big), false),
        (entry("src/empty", false, 0), true),
    ] {
        let size = if header.is_dir { 0 } else { header.size };
        send(socket, &CpServerFrame::Header(header)).await;
        for chunk in vec![b'x'; size as usize].chunks(32 * 1024) {
            let frame = Message::Binary(chunk.to_vec().into());
            socket.send(frame).await.expect("sent");
        }
        send(socket, &CpServerFrame::End(CpEnd { last })).await;
    }
}

async fn send(socket: &mut WebSocket, frame: &CpServerFrame) {
    let text = serde_json::to_string(frame).expect("it serialises");
    socket.send(Message::text(text)).await.expect("sent");
}

/// A directory with a file, a link to a file, one to a directory, one to
/// nothing and one in a circle.
fn tree(at: &Path) {
    use std::os::unix::fs::symlink;
    std::fs::create_dir_all(at.join("sub")).expect("made");
    std::fs::write(at.join("a.txt"), "hello").expect("written");
    std::fs::write(at.join("sub/b"), "").expect("written");
    symlink("a.txt", at.join("link")).expect("linked");
    symlink("sub", at.join("to-sub")).expect("linked");
    symlink("nothing", at.join("dangling")).expect("linked");
    symlink("..", at.join("sub/up")).expect("linked");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    for path in ["a.txt", "sub/b"] {
        std::fs::set_permissions(at.join(path), mode(0o640)).expect("set");
    }
    for path in ["", "sub"] {
        std::fs::set_permissions(at.join(path), mode(0o750)).expect("set");
    }
}

fn guest(path: &str, is_dir: bool, exists: bool) -> Script {
    let found = PathInfo {
        exists,
        is_dir: exists.then_some(is_dir),
        ..PathInfo::default()
    };
    Script::default().ok(
        &format!("GET /instances/web/stat?follow_links=true&path={path}"),
        &found,
    )
}

fn check_upload(name: &str, script: Script, flags: &[&str], target: &str) {
    let scratch = tempfile::tempdir().expect("a directory");
    tree(&scratch.path().join("src"));
    let fake = script.serve();
    let args = [&["cp"], flags, &["./src", target]].concat();
    let output = coppice_at(&fake, &args)
        .current_dir(scratch.path())
        .output()
        .expect("it starts");
    let text = format!(
        "{}--- asked\n{}\n",
        write_down(&args, &output),
        fake.asked()
    );
    insta::assert_snapshot!(name, text);
}

#[test]
fn a_tree_goes_into_a_guest() {
    check_upload("cp-up-into", guest("%2Fsrv", true, true), &[], "web:/srv");
    check_upload(
        "cp-up-as",
        guest("%2Fsrv%2Fnew", true, false),
        &["-L"],
        "web:/srv/new",
    );
}

#[test]
fn what_the_guest_cannot_take_is_an_error() {
    check_upload("cp-up-full", guest("%2Ffull", true, true), &[], "web:/full");
    check_upload(
        "cp-up-file",
        guest("%2Fetc%2Fhosts", false, true),
        &[],
        "web:/etc/hosts",
    );
}

#[test]
fn a_refusal_is_read_while_there_is_more_to_send() {
    let scratch = tempfile::tempdir().expect("a directory");
    std::fs::write(scratch.path().join("big"), vec![0; 64 << 20]).expect("written");
    let fake = guest("%2Frefused", true, true).serve();
    let args = ["cp", "big", "web:/refused"];
    let output = coppice_at(&fake, &args)
        .current_dir(scratch.path())
        .output()
        .expect("it starts");
    insta::assert_snapshot!("cp-up-refused", write_down(&args, &output));
}

#[test]
fn a_tree_comes_out_of_a_guest() {
    let scratch = tempfile::tempdir().expect("a directory");
    let fake = Script::default().serve();
    for (target, place) in [("out", "out"), (".", "src"), ("./out", "out/src")] {
        let args = ["cp", "--json", "web:/src", target];
        let output = coppice_at(&fake, &args)
            .current_dir(scratch.path())
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(told["bytes"], 100_000);
        let place = scratch.path().join(place);
        assert_eq!(
            std::fs::read(place.join("big")).expect("there").len(),
            100_000
        );
        assert_eq!(std::fs::read(place.join("empty")).expect("there").len(), 0);
    }
}

#[test]
fn a_copy_needs_one_end_in_a_guest() {
    let fake = || Script::default().serve();
    insta::assert_snapshot!("cp-none", transcript(&fake(), &["cp", "a", "b"]));
    insta::assert_snapshot!("cp-two", transcript(&fake(), &["cp", "a:/x", "b:/x"]));
    insta::assert_snapshot!("cp-root", transcript(&fake(), &["cp", "a:/", "x"]));
    insta::assert_snapshot!("cp-missing", transcript(&fake(), &["cp", "web:/nope", "x"]));
}
