//! The commands of a fake agent.

use std::future::pending;
use std::time::Duration;

use protocol::{ExecSpec, MAX_CHUNK, OutputKind};

use super::agent::Shared;
use super::sessions::CommandStreams;

/// A fake command that a shell would not find.
const NOT_FOUND: i32 = 127;

/// Time in which `grow` makes its file one byte longer.
const TICK: Duration = Duration::from_millis(1);

/// Runs a command and returns its exit status.
pub(super) async fn run(spec: &ExecSpec, shared: &Shared, streams: &mut CommandStreams) -> i32 {
    let words: Vec<&str> = spec.argv.iter().map(String::as_str).collect();
    match words[..] {
        ["true"] => 0,
        ["false"] => 1,
        ["exit", code] => code.parse().unwrap_or(2),
        ["echo", ref words @ ..] => print(streams, &words.join(" ")).await,
        ["cat"] => {
            while let Some(bytes) = streams.read().await {
                streams.write(OutputKind::Stdout, bytes).await;
            }
            0
        }
        ["cat", ref paths @ ..] => concatenate(paths, shared, streams).await,
        ["sleep", seconds] => {
            match seconds
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            {
                Some(duration) => tokio::time::sleep(duration).await,
                None => pending().await,
            }
            0
        }
        ["zeros", count] => zeros(count.parse().unwrap_or(0), streams).await,
        ["hostname"] => {
            let hostname = shared.state().hostname.clone();
            print(streams, &hostname).await
        }
        ["env"] => environment(spec, shared, streams).await,
        ["counter"] => {
            let count = {
                let mut state = shared.state();
                state.counter += 1;
                state.counter
            };
            print(streams, &count.to_string()).await
        }
        ["grow", path] => {
            let mut text = String::new();
            loop {
                text.push('.');
                let code = write(path, &text, shared, streams).await;
                if code != 0 {
                    break code;
                }
                tokio::time::sleep(TICK).await;
            }
        }
        ["random"] => {
            let bytes = shared.state().random_bytes();
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            print(streams, &text).await
        }
        ["write", path, ref text @ ..] => write(path, &text.join(" "), shared, streams).await,
        ["read", path] => concatenate(&[path], shared, streams).await,
        _ => {
            let text = format!(
                "coppice: {}: not found\n",
                words.first().unwrap_or(&"/bin/sh")
            );
            streams.write(OutputKind::Stderr, text.into_bytes()).await;
            NOT_FOUND
        }
    }
}

async fn print(streams: &mut CommandStreams, line: &str) -> i32 {
    streams
        .write(OutputKind::Stdout, format!("{line}\n").into_bytes())
        .await;
    0
}

async fn concatenate(paths: &[&str], shared: &Shared, streams: &mut CommandStreams) -> i32 {
    let mut code = 0;
    for path in paths {
        let content = shared.state().files.read(path);
        match content {
            Ok(bytes) => streams.write(OutputKind::Stdout, bytes).await,
            Err(failure) => {
                streams
                    .write(OutputKind::Stderr, format!("{failure}\n").into_bytes())
                    .await;
                code = 1;
            }
        }
    }
    code
}

async fn zeros(mut count: usize, streams: &mut CommandStreams) -> i32 {
    while count > 0 {
        let len = count.min(MAX_CHUNK);
        streams.write(OutputKind::Stdout, vec![0; len]).await;
        count -= len;
    }
    0
}

async fn environment(spec: &ExecSpec, shared: &Shared, streams: &mut CommandStreams) -> i32 {
    let mut env = shared
        .state()
        .start
        .as_ref()
        .map(|start| start.env.clone())
        .unwrap_or_default();
    env.retain(|(name, _)| !spec.env.iter().any(|(other, _)| other == name));
    env.extend(spec.env.iter().cloned());
    let text: String = env
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    streams.write(OutputKind::Stdout, text.into_bytes()).await;
    0
}

async fn write(path: &str, text: &str, shared: &Shared, streams: &mut CommandStreams) -> i32 {
    let spec = protocol::UploadSpec {
        path: path.to_owned(),
        kind: protocol::UploadKind::File,
        mode: None,
        owner: None,
        mtime: None,
    };
    let result = shared.state().files.write(&spec, text.as_bytes().to_vec());
    match result {
        Ok(()) => 0,
        Err(failure) => {
            streams
                .write(OutputKind::Stderr, format!("{failure}\n").into_bytes())
                .await;
            1
        }
    }
}
