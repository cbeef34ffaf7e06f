//! The barest HTTP client: one connection, answers as bytes.
//!
//! Times of the API are to be the server's. A comfortable client in a debug build would add more than
//! is measured.

use std::path::Path;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A connection that is kept.
pub(super) struct Http {
    stream: BufReader<UnixStream>,
}

impl Http {
    /// Connects to a unix socket.
    pub(super) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await.context("connect")?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Gets a path that must be there.
    pub(super) async fn get(&mut self, path: &str) -> anyhow::Result<Vec<u8>> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        if !line.starts_with("HTTP/1.1 200 ") {
            bail!("GET {path}: {line:?}");
        }
        let mut length = None;
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        let mut body = vec![0; length.context("an answer without length")?];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }
}
