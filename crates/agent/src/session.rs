//! Sessions of the host: a command, an upload or a download, each with its own credit.

use std::time::Instant;

use protocol::{
    CallId, Failure, FailureKind, STREAM_WINDOW, SendWindow, TerminalSize, ToHost, Unreported,
    UploadSpec,
};

use crate::download::{Download, Piece};
use crate::exec::{Exec, Step};
use crate::upload::Upload;

/// See the module's comment.
#[derive(Debug)]
pub(crate) enum Session {
    Exec(Box<ExecSession>),
    Upload(Box<UploadSession>),
    Download(Box<DownloadSession>),
}

#[derive(Debug)]
pub(crate) struct ExecSession {
    pub(crate) exec: Exec,
    window: SendWindow,
    unreported: Unreported,
    /// Cost of input the process has not taken yet.
    held: u32,
}

#[derive(Debug)]
pub(crate) struct UploadSession {
    upload: Upload,
    unreported: Unreported,
}

#[derive(Debug)]
pub(crate) struct DownloadSession {
    download: Download,
    window: SendWindow,
    /// Waits for credit.
    blocked: Option<ToHost>,
}

/// What a session wants.
pub(crate) enum Outcome {
    Send(ToHost),
    /// Send this; the session is over.
    Last(ToHost),
    Idle,
}

impl Session {
    pub(crate) fn exec(exec: Exec) -> Self {
        let session = ExecSession {
            exec,
            window: SendWindow::default(),
            unreported: Unreported::default(),
            held: 0,
        };
        Session::Exec(Box::new(session))
    }

    pub(crate) fn upload(spec: UploadSpec) -> Result<Self, Failure> {
        let upload = Upload::open(spec)?;
        Ok(Session::Upload(Box::new(UploadSession {
            upload,
            unreported: Unreported::default(),
        })))
    }

    pub(crate) fn download(path: &str, follow: bool) -> Result<Self, Failure> {
        let download = Download::open(path, follow)?;
        Ok(Session::Download(Box::new(DownloadSession {
            download,
            window: SendWindow::default(),
            blocked: None,
        })))
    }

    /// The command, if this is one.
    pub(crate) fn as_exec(&mut self) -> Option<&mut Exec> {
        match self {
            Session::Exec(session) => Some(&mut session.exec),
            Session::Upload(_) | Session::Download(_) => None,
        }
    }

    pub(crate) fn next_time(&self) -> Option<Instant> {
        match self {
            Session::Exec(session) => session.exec.next_time(),
            Session::Upload(_) | Session::Download(_) => None,
        }
    }

    /// Data of the host. `Some` credit is to be reported.
    pub(crate) fn data(&mut self, bytes: &[u8], cost: u32) -> Result<Option<u32>, Failure> {
        match self {
            Session::Exec(session) => {
                if session.held.saturating_add(cost) > STREAM_WINDOW {
                    return Err(Failure::new(FailureKind::Limit, "more input than credit"));
                }
                session.exec.add_input(bytes);
                session.held += cost;
                Ok(None)
            }
            Session::Upload(session) => {
                session.upload.write(bytes)?;
                Ok(session.unreported.consumed(cost))
            }
            Session::Download(_) => Err(Failure::new(
                FailureKind::Invalid,
                "a download takes no data",
            )),
        }
    }

    pub(crate) fn resize(&mut self, size: TerminalSize) {
        if let Some(exec) = self.as_exec() {
            exec.resize(size);
        }
    }

    pub(crate) fn credit(&mut self, cost: u32) {
        match self {
            Session::Exec(session) => session.window.give(cost),
            Session::Download(session) => session.window.give(cost),
            Session::Upload(_) => {}
        }
    }

    /// The next thing to do for this session.
    pub(crate) fn step(&mut self, call: CallId) -> Outcome {
        match self {
            Session::Exec(session) => session.step(call),
            Session::Upload(_) => Outcome::Idle,
            Session::Download(session) => session.step(call),
        }
    }
}

impl ExecSession {
    fn step(&mut self, call: CallId) -> Outcome {
        self.exec.push_input();
        if self.held > 0
            && self.exec.input_waiting() == 0
            && let Some(cost) = self.unreported.consumed(std::mem::take(&mut self.held))
        {
            return Outcome::Send(ToHost::Credit { call, cost });
        }
        match self.exec.step(self.window.payload()) {
            Step::Output(kind, bytes) => {
                let message = ToHost::Data { call, kind, bytes };
                // The room asked for was what the window allows.
                let _ = self.window.take(message.cost());
                Outcome::Send(message)
            }
            Step::Exit(status) => Outcome::Last(ToHost::ExecExit { call, status }),
            Step::Blocked => Outcome::Idle,
        }
    }
}

impl DownloadSession {
    fn step(&mut self, call: CallId) -> Outcome {
        let message = match self.blocked.take() {
            Some(message) => message,
            None => match self.download.next() {
                Ok(Piece::Header(header)) => ToHost::Entry {
                    call,
                    header: Box::new(header),
                },
                Ok(Piece::Data(bytes)) => ToHost::Data {
                    call,
                    kind: protocol::OutputKind::File,
                    bytes,
                },
                Ok(Piece::End { last }) => ToHost::EntryEnd { call, last },
                Err(failure) => return Outcome::Last(ToHost::Failed { call, failure }),
            },
        };
        if !self.window.take(message.cost()) {
            self.blocked = Some(message);
            return Outcome::Idle;
        }
        match message {
            ToHost::EntryEnd { last: true, .. } => Outcome::Last(message),
            message => Outcome::Send(message),
        }
    }
}

/// Ends an upload: the last message about it.
pub(crate) fn finish_upload(session: UploadSession, call: CallId) -> ToHost {
    match session.upload.finish() {
        Ok(bytes_written) => ToHost::Uploaded {
            call,
            bytes_written,
        },
        Err(failure) => ToHost::Failed { call, failure },
    }
}
