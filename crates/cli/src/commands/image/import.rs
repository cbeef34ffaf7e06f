//! `image import`: send an archive, or a directory as one, to the server.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::client::Client;
use api::images::ImportImageQuery;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::SyncIoBridge;

use crate::args::ImageImportArgs;
use crate::failure::Failure;
use crate::printer::Printer;
use crate::progress::Progress;

/// What a directory's archive may be ahead of the connection.
const PIPE_BYTES: usize = 256 * 1024;

pub(crate) async fn import(
    client: &Client,
    printer: &Printer,
    args: ImageImportArgs,
) -> Result<(), Failure> {
    let query = ImportImageQuery {
        name: args.name,
        platform: args.platform,
    };
    let (archive, total) = open(&args.path).await?;
    let progress = Arc::new(printer.bytes_bar("importing", total));
    let counted = Counted {
        inner: archive,
        progress: Arc::clone(&progress),
        total,
        seen: 0,
    };
    let image = client.import_image(&query, counted).await?;
    drop(progress);
    Ok(printer.show(&image, |image| image.name.clone())?)
}

type Archive = Box<dyn AsyncRead + Send + Unpin>;

async fn open(path: &Path) -> Result<(Archive, Option<u64>), Failure> {
    if path == Path::new("-") {
        return Ok((Box::new(tokio::io::stdin()), None));
    }
    let fail = |error| Failure::local(format!("cannot read {}", path.display()), error);
    let metadata = tokio::fs::metadata(path).await.map_err(fail)?;
    if metadata.is_dir() {
        return Ok((pack(path.to_owned()), None));
    }
    let file = tokio::fs::File::open(path).await.map_err(fail)?;
    let total = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), total))
}

/// A directory as an archive, made while it is read.
fn pack(directory: PathBuf) -> Archive {
    let (reader, writer) = tokio::io::duplex(PIPE_BYTES);
    let (report, failure) = tokio::sync::oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut archive = tar::Builder::new(SyncIoBridge::new(writer));
        archive.follow_symlinks(false);
        let done = archive
            .append_dir_all(".", &directory)
            .and_then(|()| archive.finish());
        // Nobody listens any more once the server has refused the archive.
        let _ = report.send(done);
    });
    Box::new(Packed {
        reader,
        outcome: Some(failure),
    })
}

/// The reading end of an archive in the making. Its end is only an end when
/// the writer says so; else a half archive would look complete.
struct Packed {
    reader: tokio::io::DuplexStream,
    outcome: Option<tokio::sync::oneshot::Receiver<io::Result<()>>>,
}

impl AsyncRead for Packed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.reader).poll_read(cx, buffer);
        let at_end = matches!(read, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        let Some(outcome) = self.outcome.as_mut().filter(|_| at_end) else {
            return read;
        };
        Pin::new(outcome).poll(cx).map(|outcome| {
            self.outcome = None;
            outcome.unwrap_or_else(|_| Err(io::Error::other("packing the directory broke off")))
        })
    }
}

/// Shows how far a reader is.
struct Counted {
    inner: Archive,
    progress: Arc<Progress>,
    total: Option<u64>,
    seen: u64,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        let count = (buffer.filled().len() - before) as u64;
        self.seen += count;
        self.progress.advance(count);
        if count > 0 && self.total == Some(self.seen) {
            self.progress.say("unpacking on the server");
        }
        read
    }
}
