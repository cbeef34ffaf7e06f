//! The exec websocket: frames of the public contract to a session with the agent.

use std::time::Duration;

use api::exec::{EXIT_NOT_STARTED, ExecExit, ExecRefusal, ExecResize, ExecStart, ExecStreams, tag};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use guest::{ExecInput, ExecOutput, ExecSpec, ExitStatus, Link, LinkError, Output, TerminalSize};
use model::InstanceId;
use tracing::info;

use super::App;
use super::error::ApiError;
use super::extract::{Key, Upgrade, named};
use crate::instances::chain;

/// How long a client may take to say what to run.
const FIRST_FRAME: Duration = Duration::from_secs(10);
/// How long a client may take to close after its command has ended.
const CLOSING: Duration = Duration::from_secs(5);
/// Longest message from a client; SDKs send at most 32 KiB at a time.
const MAX_MESSAGE: usize = 1 << 20;

/// Run a command in an instance.
#[utoipa::path(get, path = "/instances/{id}/exec", operation_id = "execInInstance", tag = "instances", params(("id" = String, Path)),
    responses((status = 101, description = "A websocket; see the guide"), (status = 409, body = api::error::ErrorBody)))]
pub(crate) async fn exec(
    State(app): State<App>,
    Key(key): Key,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (id, link) = super::guest_link(&app, &key, model::Operation::Exec).await?;
    Ok(upgrade
        .0?
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| serve(app, id, link, socket)))
}

async fn serve(app: App, id: InstanceId, link: Link, mut socket: WebSocket) {
    let start = match first_frame(&mut socket).await {
        Ok(start) => start,
        Err(refusal) => {
            let text = serde_json::json!(ExecRefusal { error: refusal }).to_string();
            // The client may be gone; there is nobody else to tell.
            let _ = socket.send(Message::Text(text.into())).await;
            let _ = socket.send(Message::Close(None)).await;
            return;
        }
    };
    let streams = start.streams;
    let tty = start.tty;
    let began = std::time::Instant::now();
    // The command's words may hold secrets: only its name is logged.
    let program = start.command.first().cloned().unwrap_or_default();
    let (mut sink, mut stream) = socket.split();
    let code = match run(&link, start, &mut sink, &mut stream, streams, tty).await {
        Ok(Some(status)) => status.code,
        // The client left: the session was dropped, which kills the command.
        Ok(None) => return,
        Err(error) => {
            let text = format!("Error: {}\r\n", chain(&error));
            let frame = framed(streams, tag::STDERR, &Bytes::from(text));
            let _ = sink.send(Message::Binary(frame)).await;
            EXIT_NOT_STARTED
        }
    };
    app.instances.executed(&id);
    info!(instance = %id, %program, code, ms = began.elapsed().as_millis(), "exec");
    let exit = serde_json::json!(ExecExit { exit_code: code }).to_string();
    let _ = sink.send(Message::Text(exit.into())).await;
    let _ = sink.close().await;
    // A client may still be sending input that nobody reads any more. Closing under it
    // would break its pipe, or even take the exit code from it.
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    let _ = tokio::time::timeout(CLOSING, rest).await;
}

async fn first_frame(socket: &mut WebSocket) -> Result<ExecStart, String> {
    let frame = tokio::time::timeout(FIRST_FRAME, socket.recv())
        .await
        .map_err(|_| "no first frame came in time".to_owned())?;
    let Some(Ok(Message::Text(text))) = frame else {
        return Err("the first frame must be text: a JSON object with command".to_owned());
    };
    named(text.as_bytes()).map_err(|error| format!("invalid first frame: {error}"))
}

fn spec(start: ExecStart) -> ExecSpec {
    let size = TerminalSize::default();
    let rows = start.rows.filter(|rows| *rows > 0).unwrap_or(size.rows);
    let cols = start.cols.filter(|cols| *cols > 0).unwrap_or(size.cols);
    ExecSpec {
        argv: start.command,
        env: start.env.unwrap_or_default().into_iter().collect(),
        cwd: start.cwd.filter(|cwd| !cwd.is_empty()),
        user: start.user,
        tty: start.tty.then_some(TerminalSize { rows, cols }),
        timeout_ms: start
            .timeout
            .filter(|seconds| *seconds > 0)
            .map(|seconds| u64::from(seconds) * 1000),
    }
}

/// Runs until the command ends; none if the client left first.
async fn run(
    link: &Link,
    start: ExecStart,
    sink: &mut SplitSink<WebSocket, Message>,
    stream: &mut SplitStream<WebSocket>,
    streams: ExecStreams,
    tty: bool,
) -> Result<Option<ExitStatus>, LinkError> {
    let (input, output) = link.exec(spec(start)).await?.split();
    // Both directions at once: a command that waits for its output to be read must not
    // keep its input from arriving, nor the other way round.
    tokio::select! {
        status = pump_output(output, sink, streams) => status,
        () = pump_input(input, stream, streams, tty) => Ok(None),
    }
}

async fn pump_output(
    mut output: ExecOutput,
    sink: &mut SplitSink<WebSocket, Message>,
    streams: ExecStreams,
) -> Result<Option<ExitStatus>, LinkError> {
    while let Some(next) = output.next().await? {
        let frame = match next {
            Output::Exit(status) => return Ok(Some(status)),
            Output::Stdout(bytes) => framed(streams, tag::STDOUT, &bytes),
            Output::Stderr(bytes) => framed(streams, tag::STDERR, &bytes),
        };
        if sink.send(Message::Binary(frame)).await.is_err() {
            return Ok(None);
        }
    }
    Err(LinkError::Closed)
}

fn framed(streams: ExecStreams, tag: u8, bytes: &Bytes) -> Bytes {
    match streams {
        ExecStreams::Merged => bytes.clone(),
        ExecStreams::Tagged => {
            let mut frame = BytesMut::with_capacity(bytes.len() + 1);
            frame.put_u8(tag);
            frame.put_slice(bytes);
            frame.freeze()
        }
    }
}

/// Returns when the client has left. A command that has ended does not care for input
/// any more, so errors of writing to it are not errors here.
async fn pump_input(
    mut input: ExecInput,
    stream: &mut SplitStream<WebSocket>,
    streams: ExecStreams,
    tty: bool,
) {
    while let Some(Ok(message)) = stream.next().await {
        let _ = match message {
            Message::Text(text) => match resize(&text, tty) {
                Some(size) => input.resize(size).await,
                None => input.write(Bytes::from(text)).await,
            },
            Message::Binary(bytes) => stdin(&mut input, streams, bytes).await,
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
    }
}

async fn stdin(
    input: &mut ExecInput,
    streams: ExecStreams,
    mut bytes: Bytes,
) -> Result<(), LinkError> {
    match streams {
        ExecStreams::Merged => input.write(bytes).await,
        ExecStreams::Tagged if bytes.first() != Some(&tag::STDIN) => Ok(()),
        ExecStreams::Tagged if bytes.len() == 1 => input.eof().await,
        ExecStreams::Tagged => input.write(bytes.split_off(1)).await,
    }
}

/// With a terminal, a text frame of exactly this form is not input.
fn resize(text: &str, tty: bool) -> Option<TerminalSize> {
    if !tty {
        return None;
    }
    let ExecResize { resize } = serde_json::from_str(text).ok()?;
    Some(TerminalSize {
        rows: resize.rows,
        cols: resize.cols,
    })
}
