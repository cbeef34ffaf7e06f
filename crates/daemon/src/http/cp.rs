//! The cp websocket: one entry in, a tree out, or a look at a path.

use std::time::Duration;

use api::cp::{
    CpClientFrame, CpDirection, CpEnd, CpError, CpHeader, CpResult, CpServerFrame, CpStart,
};
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use guest::{DownloadItem, EntryHeader, EntryKind, Link, LinkError, Owner, UploadKind, UploadSpec};

use super::App;
use super::error::ApiError;
use super::extract::{Key, Upgrade, named};
use super::guest_files::path_info;
use crate::instances::chain;

/// How long a client may take to say what to copy, and between two pieces of an upload.
const IDLE: Duration = Duration::from_secs(60);
/// Longest message from a client; SDKs send at most 32 KiB at a time.
const MAX_MESSAGE: usize = 1 << 20;
/// What the public SDKs accept as mode: permission bits without set-id bits.
const PERMISSIONS: u32 = 0o777;

/// Copy files into or out of an instance.
#[utoipa::path(get, path = "/instances/{id}/cp", operation_id = "copyInInstance", tag = "instances", params(("id" = String, Path)),
    responses((status = 101, description = "A websocket; see the guide"), (status = 409, body = api::error::ErrorBody)))]
pub(crate) async fn cp(
    State(app): State<App>,
    Key(key): Key,
    upgrade: Upgrade,
) -> Result<Response, ApiError> {
    let (_, link) = super::guest_link(&app, &key, model::Operation::Copy).await?;
    Ok(upgrade
        .0?
        .max_message_size(MAX_MESSAGE)
        .on_upgrade(move |socket| serve(link, socket)))
}

/// Why a copy ended early.
enum Broken {
    /// The client left.
    Left,
    /// The guest, or the client's words, are at fault.
    Told(String),
}

impl From<LinkError> for Broken {
    fn from(error: LinkError) -> Self {
        Self::Told(chain(&error))
    }
}

async fn serve(link: Link, mut socket: WebSocket) {
    let path = match copy(&link, &mut socket).await {
        Ok(()) | Err((Broken::Left, _)) => None,
        Err((Broken::Told(message), path)) => Some((message, path)),
    };
    if let Some((message, path)) = path {
        let frame = CpServerFrame::Error(CpError { message, path });
        // The client may be gone; there is nobody else to tell.
        let _ = tell(&mut socket, &frame).await;
    }
    let _ = socket.send(Message::Close(None)).await;
}

async fn copy(link: &Link, socket: &mut WebSocket) -> Result<(), (Broken, Option<String>)> {
    let start = match next(socket).await {
        Ok(Message::Text(text)) => named::<CpStart>(text.as_bytes())
            .map_err(|error| (Broken::Told(format!("invalid first frame: {error}")), None))?,
        Ok(_) => {
            return Err((
                Broken::Told("the first frame must be text".to_owned()),
                None,
            ));
        }
        Err(broken) => return Err((broken, None)),
    };
    let path = Some(start.guest_path.clone());
    let result = match start.direction {
        CpDirection::To => upload(link, socket, start).await,
        CpDirection::From => download(link, socket, start).await,
        CpDirection::Stat => stat(link, socket, start).await,
    };
    result.map_err(|broken| (broken, path))
}

async fn stat(link: &Link, socket: &mut WebSocket, start: CpStart) -> Result<(), Broken> {
    let follow = start.follow_links.unwrap_or(false);
    let info = link.stat(start.guest_path, follow).await?;
    tell(socket, &CpServerFrame::Stat(path_info(info))).await
}

async fn upload(link: &Link, socket: &mut WebSocket, start: CpStart) -> Result<(), Broken> {
    let result = match receive(link, socket, start).await {
        Ok(bytes_written) => CpResult {
            success: true,
            bytes_written,
            error: None,
        },
        Err(Broken::Told(error)) => CpResult {
            success: false,
            bytes_written: 0,
            error: Some(error),
        },
        Err(Broken::Left) => return Err(Broken::Left),
    };
    let refused = !result.success;
    tell(socket, &CpServerFrame::Result(result)).await?;
    if refused {
        drain(socket).await;
    }
    Ok(())
}

/// Reads on after a refusal, for a while: a client that is still sending would lose the
/// answer to a connection reset if the socket were closed under it.
async fn drain(socket: &mut WebSocket) {
    let rest = async {
        while let Ok(message) = next(socket).await {
            if matches!(message, Message::Text(_)) {
                return;
            }
        }
    };
    // Either way the connection is closed next.
    let _ = tokio::time::timeout(IDLE, rest).await;
}

async fn receive(link: &Link, socket: &mut WebSocket, start: CpStart) -> Result<u64, Broken> {
    let owner = match (start.uid, start.gid) {
        (Some(uid), Some(gid)) if uid != 0 && gid != 0 => Some(Owner { uid, gid }),
        _ => None,
    };
    let kind = if start.is_dir == Some(true) {
        UploadKind::Directory
    } else {
        UploadKind::File
    };
    let mut upload = link
        .upload(UploadSpec {
            path: start.guest_path,
            kind,
            mode: start.mode.filter(|mode| *mode != 0),
            owner,
            mtime: None,
        })
        .await?;
    loop {
        match next(socket).await? {
            Message::Binary(bytes) => upload.write(bytes).await?,
            Message::Text(text) => {
                let CpClientFrame::End = serde_json::from_str(&text)
                    .map_err(|error| Broken::Told(format!("invalid frame: {error}")))?;
                return Ok(upload.finish().await?);
            }
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }
}

async fn download(link: &Link, socket: &mut WebSocket, start: CpStart) -> Result<(), Broken> {
    let follow = start.follow_links.unwrap_or(false);
    let mut download = link.download(start.guest_path, follow).await?;
    while let Some(item) = download.next().await? {
        match item {
            DownloadItem::Entry(entry) => {
                tell(socket, &CpServerFrame::Header(header(entry))).await?;
            }
            DownloadItem::Data(bytes) => {
                socket
                    .send(Message::Binary(bytes))
                    .await
                    .map_err(|_| Broken::Left)?;
            }
            DownloadItem::End { last } => {
                tell(socket, &CpServerFrame::End(CpEnd { last })).await?;
            }
        }
    }
    Ok(())
}

fn header(entry: EntryHeader) -> CpHeader {
    let (is_dir, size, link_target) = match entry.kind {
        EntryKind::File { size } => (false, size, None),
        EntryKind::Directory => (true, 0, None),
        EntryKind::Symlink { target } => (false, 0, Some(target)),
    };
    CpHeader {
        path: entry.path,
        mode: entry.mode & PERMISSIONS,
        is_dir,
        is_symlink: link_target.is_some(),
        link_target,
        size,
        mtime: u64::try_from(entry.mtime).unwrap_or(0),
        uid: Some(entry.owner.uid),
        gid: Some(entry.owner.gid),
    }
}

async fn next(socket: &mut WebSocket) -> Result<Message, Broken> {
    match tokio::time::timeout(IDLE, socket.recv()).await {
        Err(_) => Err(Broken::Told("nothing came in time".to_owned())),
        Ok(None | Some(Err(_) | Ok(Message::Close(_)))) => Err(Broken::Left),
        Ok(Some(Ok(message))) => Ok(message),
    }
}

async fn tell(socket: &mut WebSocket, frame: &CpServerFrame) -> Result<(), Broken> {
    let text = serde_json::to_string(frame).map_err(|error| Broken::Told(error.to_string()))?;
    socket
        .send(Message::Text(text.into()))
        .await
        .map_err(|_| Broken::Left)
}
