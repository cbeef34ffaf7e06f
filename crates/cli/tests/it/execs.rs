//! Commands in guests, over the websocket.

use std::sync::Arc;

use api::exec::{ExecExit, ExecResize, ExecStart, tag};
use api::instances::InstanceState;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::Response;

use crate::cli::{coppice_at, transcript, with_stdin, write_down};
use crate::fixtures::instance;
use crate::server::{Fake, Script, Shared};

/// Plays a guest in which the first word of the command says what happens.
pub(crate) async fn serve(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    if let Some(answer) = shared.scripted(&line) {
        shared.note(line);
        return answer;
    }
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .expect("a websocket");
    upgrade.on_upgrade(async move |mut socket| {
        let first = text(&mut socket).await;
        shared.note(format!("{line} {first}"));
        let start: ExecStart = serde_json::from_str(&first).expect("a first frame");
        play(&mut socket, &start).await;
    })
}

async fn play(socket: &mut WebSocket, start: &ExecStart) {
    let code = match start.command.first().map(String::as_str) {
        Some("both") => {
            send(socket, tag::STDOUT, b"to stdout\n").await;
            send(socket, tag::STDERR, b"to stderr\n").await;
            3
        }
        Some("cat") => {
            while let Some(data) = stdin(socket).await {
                send(socket, tag::STDOUT, &data).await;
            }
            0
        }
        Some("terminal") => {
            let shown = format!("{:?} {:?}\r\n", start.rows, start.cols);
            send(socket, tag::STDOUT, shown.as_bytes()).await;
            // As many sizes as come, until a key does.
            let keys = loop {
                match socket.recv().await.expect("a frame").expect("no error") {
                    Message::Text(text) => {
                        let resize: ExecResize = serde_json::from_str(&text).expect("a resize");
                        let shown = format!("{:?}\r\n", resize.resize);
                        send(socket, tag::STDOUT, shown.as_bytes()).await;
                    }
                    Message::Binary(keys) => break keys,
                    other => panic!("unexpected {other:?}"),
                }
            };
            send(
                socket,
                tag::STDOUT,
                format!("{:?}\r\n", &keys[1..]).as_bytes(),
            )
            .await;
            0
        }
        Some("vanish") => return,
        Some("bad-frame") => {
            let refusal = r#"{"error":"the first frame has no command"}"#;
            socket.send(Message::text(refusal)).await.expect("sent");
            return until_left(socket).await;
        }
        other => panic!("unknown command {other:?}"),
    };
    let exit = serde_json::to_string(&ExecExit { exit_code: code }).expect("it serialises");
    socket.send(Message::text(exit)).await.expect("sent");
    until_left(socket).await;
}

/// As the daemon does: closing under a client that still sends would take the last words from it.
async fn until_left(socket: &mut WebSocket) {
    while let Some(Ok(_)) = socket.recv().await {}
}

async fn text(socket: &mut WebSocket) -> String {
    match socket.recv().await.expect("a frame").expect("no error") {
        Message::Text(text) => text.to_string(),
        other => panic!("not text: {other:?}"),
    }
}

async fn stdin(socket: &mut WebSocket) -> Option<Vec<u8>> {
    match socket.recv().await.expect("a frame").expect("no error") {
        Message::Binary(data) if data[..] == [tag::STDIN] => None,
        Message::Binary(data) => Some(data.strip_prefix(&[tag::STDIN]).expect("stdin").to_vec()),
        other => panic!("not stdin: {other:?}"),
    }
}

async fn send(socket: &mut WebSocket, tag: u8, data: &[u8]) {
    let frame = [&[tag], data].concat();
    socket
        .send(Message::Binary(frame.into()))
        .await
        .expect("sent");
}

fn fake() -> Fake {
    Script::default().serve()
}

#[test]
fn streams_and_the_exit_code_come_through() {
    let args = ["exec", "web", "-e", "A=1", "-w", "/tmp"];
    let args = [
        &args[..],
        &["-u", "root", "--timeout", "9", "both", "-x", "--json"],
    ]
    .concat();
    insta::assert_snapshot!("exec", transcript(&fake(), &args));
    insta::assert_snapshot!(
        "exec-json",
        transcript(&fake(), &["--json", "exec", "web", "--", "both"])
    );
}

#[test]
fn a_lot_of_stdin_does_not_jam() {
    let input: Vec<u8> = (0..8 << 20).map(|n: u32| (n % 251) as u8).collect();
    let output = with_stdin(
        coppice_at(&fake(), &["exec", "-i", "web", "cat"]),
        input.clone(),
    );
    assert!(output.status.success());
    assert!(output.stdout == input);
}

#[test]
fn without_i_stdin_is_at_its_end() {
    let output = with_stdin(coppice_at(&fake(), &["exec", "web", "cat"]), Vec::new());
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}

#[test]
fn unix_sockets_carry_websockets_too() {
    let scratch = tempfile::tempdir().expect("a directory");
    let fake = Script::default().serve_unix(&scratch.path().join("s"));
    let output = coppice_at(&fake, &["exec", "web", "both"])
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(output.stdout, b"to stdout\n");
}

#[test]
fn what_was_not_run_has_its_own_exit_code() {
    let fake = Script::default()
        .error(
            "GET /instances/web/exec",
            409,
            "invalid_state",
            "web is Standby, not Running",
        )
        .ok(
            "GET /instances/web",
            &instance("web", InstanceState::Standby),
        )
        .serve();
    insta::assert_snapshot!("exec-refused", transcript(&fake, &["exec", "web", "true"]));
    for word in ["vanish", "bad-frame"] {
        let args = ["exec", "web", word];
        let output = coppice_at(&self::fake(), &args)
            .output()
            .expect("it starts");
        insta::assert_snapshot!(format!("exec-{word}"), write_down(&args, &output));
    }
    let args = ["exec", "-it", "web", "sh"];
    let output = coppice_at(&self::fake(), &args)
        .output()
        .expect("it starts");
    insta::assert_snapshot!("exec-no-terminal", write_down(&args, &output));
}

/// `script` gives the program a terminal of its own; its size is changed and a
/// key is typed once the program has shown that it listens.
#[test]
fn a_terminal_is_passed_on() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    let fake = fake();
    let program = env!("CARGO_BIN_EXE_coppice");
    let inner = format!("tty; stty rows 30 cols 90; exec {program} exec -it web terminal");
    let mut child = Command::new("script")
        .args(["-qefc", &inner, "/dev/null"])
        .env("COPPICE_HOST", &fake.address)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is part of every Debian");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || {
        lines
            .next()
            .expect("a line")
            .expect("UTF-8")
            .trim()
            .to_owned()
    };

    let terminal = next();
    assert_eq!(next(), "Some(30) Some(90)");
    let size = Command::new("stty")
        .args(["-F", &terminal, "rows", "31", "cols", "91"])
        .status();
    assert!(size.expect("stty starts").success());
    // `stty` sets one after the other, and each change may be told.
    while next() != "TerminalSize { rows: 31, cols: 91 }" {}
    // In raw mode the interrupt key is a byte like any other.
    stdin.write_all(b"\x03").expect("typed");
    assert_eq!(next(), "[3]");
    drop(stdin);
    assert!(child.wait().expect("it ends").success());
}
