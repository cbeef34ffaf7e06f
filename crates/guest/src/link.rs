//! One connection to the agent of one guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use protocol::{
    CallId, ExecSpec, GuestPhase, Identity, PathInfo, ResumeReport, StartSpec, ToGuest, ToHost,
    UploadSpec, encode,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};

use crate::deadline::Deadline;
use crate::driver::{self, WRITE_QUEUE};
use crate::handshake::{greet, nonce};
use crate::router::Router;
use crate::{Download, Events, ExecSession, LinkError, Upload, session};

/// Time for requests that need no work in the guest beyond a few system calls. Generous for
/// emulated guests on busy hosts.
const PROMPT: Duration = Duration::from_secs(30);

/// A connection to a guest's agent. Clones share it; it is closed when the last clone and the last
/// session are dropped.
///
/// All calls are cancel safe in the sense that the connection stays usable; whether the agent still
/// carries out a call that was given up is open.
#[derive(Debug, Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

/// A program that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// Process id in the guest; 0 when the program could not be run, in which case its exit is
    /// reported at once.
    pub pid: u32,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) router: Arc<Router>,
    frames: mpsc::Sender<Vec<u8>>,
    calls: AtomicU32,
    agent: String,
}

impl Link {
    /// Greets the agent behind `stream`. It may still be booting: the answer is awaited until
    /// `deadline` from now.
    ///
    /// # Errors
    /// [`LinkError`]; the stream is closed then.
    pub async fn connect<S>(stream: S, deadline: Duration) -> Result<(Link, Events), LinkError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let deadline = Deadline::after(deadline);
        let greeted = deadline.run("hello", greet(stream)).await?;
        let (sender, events) = Events::channel();
        let router = Router::new(sender);
        router.set_phase(greeted.ack.phase.clone());
        router.set_frozen(greeted.ack.frozen);
        let agent = greeted.ack.agent.clone();
        let router = Arc::new(router);
        let (frames, queue) = mpsc::channel(WRITE_QUEUE);
        driver::spawn(greeted, Arc::clone(&router), queue);
        let link = Link {
            inner: Arc::new(Inner {
                router,
                frames,
                calls: AtomicU32::new(1),
                agent,
            }),
        };
        Ok((link, events))
    }

    /// How far the guest is, as last heard.
    pub fn phase(&self) -> GuestPhase {
        self.inner.router.phase()
    }

    /// Whether everything in the guest but its agent stands still, as last heard. `true` as well
    /// when a [`Link::quiesce`] was given up before its answer: then it is not known.
    pub fn frozen(&self) -> bool {
        self.inner.router.frozen()
    }

    /// The agent's build, for people.
    pub fn agent_version(&self) -> &str {
        &self.inner.agent
    }

    /// Sets a freshly booted machine up and starts its program.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the machine could not be set up. A program that cannot be run is
    /// no error: it counts as started and exited.
    pub async fn start(&self, spec: StartSpec, deadline: Duration) -> Result<Started, LinkError> {
        let spec = Box::new(spec);
        match self
            .call("start", deadline, |call| ToGuest::Start { call, spec })
            .await?
        {
            ToHost::Started { pid, .. } => Ok(Started { pid }),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// Gives a machine that woke from a memory image its identity, after which its programs go on.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when a step failed in the guest: the machine must not be used.
    pub async fn resume(
        &self,
        identity: Identity,
        deadline: Duration,
    ) -> Result<ResumeReport, LinkError> {
        let nonce = nonce()?;
        let identity = Box::new(identity);
        resumed(
            self.call("resume", deadline, |call| ToGuest::Resume {
                call,
                nonce,
                identity,
            })
            .await?,
            nonce,
        )
    }

    /// Writes all file systems of the guest out and stops every process but the agent. They stand
    /// still until [`Link::thaw`] or [`Link::resume`].
    ///
    /// # Errors
    /// [`LinkError::Refused`] when a process cannot be stopped: all of them run on. After any other
    /// error it is not known which; [`Link::thaw`] settles it.
    pub async fn quiesce(&self, deadline: Duration) -> Result<(), LinkError> {
        let was_frozen = self.frozen();
        self.inner.router.set_frozen(true);
        let answer = self
            .call("quiesce", deadline, |call| ToGuest::Quiesce { call })
            .await;
        if let Err(LinkError::Refused(_)) = answer {
            self.inner.router.set_frozen(was_frozen);
        }
        done(answer?)
    }

    /// Lets the processes of a machine that was frozen go on as they are: the machine is still the
    /// one it was. One that became another machine needs [`Link::resume`] instead. Does nothing to
    /// a machine that is not frozen.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn thaw(&self, deadline: Duration) -> Result<(), LinkError> {
        done(
            self.call("thaw", deadline, |call| ToGuest::Thaw { call })
                .await?,
        )?;
        self.inner.router.set_frozen(false);
        Ok(())
    }

    /// Lets a frozen machine go the way of a resume and of a first command without effect, and
    /// without running anything of the image, so that both are fast when they come. A machine that
    /// could not rehearse is as good as it was, unless its connection is gone.
    ///
    /// # Errors
    /// [`LinkError::Refused`] of kind `Phase` when the machine is not frozen, of other kinds when
    /// the rehearsal failed.
    pub async fn rehearse(&self, deadline: Duration) -> Result<(), LinkError> {
        done(
            self.call("rehearsal", deadline, |call| ToGuest::Rehearse { call })
                .await?,
        )
    }

    /// Runs a command. Returns as soon as the request is on its way; a refusal comes from
    /// [`crate::ExecOutput::next`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn exec(&self, spec: ExecSpec) -> Result<ExecSession, LinkError> {
        let spec = Box::new(spec);
        let (input, output) =
            session::open(&self.inner, |call| ToGuest::Exec { call, spec }).await?;
        Ok(ExecSession::new(input, output))
    }

    /// Describes a path; `follow` describes what a symbolic link points at.
    ///
    /// # Errors
    /// [`LinkError`]; a path that is missing or cannot be read is an answer, no error.
    pub async fn stat(&self, path: impl Into<String>, follow: bool) -> Result<PathInfo, LinkError> {
        let path = path.into();
        match self
            .call("stat", PROMPT, |call| ToGuest::Stat { call, path, follow })
            .await?
        {
            ToHost::Path { info, .. } => Ok(info),
            _ => Err(LinkError::Unexpected),
        }
    }

    /// Begins to write one entry. A refusal comes from the methods of [`Upload`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn upload(&self, spec: UploadSpec) -> Result<Upload, LinkError> {
        let spec = Box::new(spec);
        let (input, output) =
            session::open(&self.inner, |call| ToGuest::Upload { call, spec }).await?;
        Ok(Upload::new(input, output))
    }

    /// Begins to read a file or a tree, parents first; `follow` sends what symbolic links point at.
    /// A refusal comes from [`Download::next`].
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn download(
        &self,
        path: impl Into<String>,
        follow: bool,
    ) -> Result<Download, LinkError> {
        let path = path.into();
        let (input, output) =
            session::open(&self.inner, |call| ToGuest::Download { call, path, follow }).await?;
        Ok(Download::new(input, output))
    }

    /// Asks the machine to end: `signal` (or the program's stop signal) to the program, SIGKILL
    /// after `grace`, then power off. Returns when the agent has begun; the end is seen in the
    /// state of the VMM.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn shutdown(&self, signal: Option<i32>, grace: Duration) -> Result<(), LinkError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        done(
            self.call("shutdown", PROMPT, |call| ToGuest::Shutdown {
                call,
                signal,
                grace_ms,
            })
            .await?,
        )
    }

    /// Tells the agent that the program's exit is recorded; the machine powers off then.
    ///
    /// # Errors
    /// [`LinkError::Refused`] when the program has not ended.
    pub async fn acknowledge_exit(&self) -> Result<(), LinkError> {
        done(
            self.call("exit acknowledgement", PROMPT, |call| ToGuest::ExitAck {
                call,
            })
            .await?,
        )
    }

    /// Waits until the connection is gone. Cancel safe.
    pub async fn closed(&self) {
        self.inner.router.closed().await;
    }

    async fn call(
        &self,
        what: &'static str,
        deadline: Duration,
        request: impl FnOnce(CallId) -> ToGuest,
    ) -> Result<ToHost, LinkError> {
        let call = self.inner.next_call();
        let reply = self.inner.router.expect_reply(call);
        let _registered = Registered {
            router: &self.inner.router,
            call,
        };
        let work = async {
            self.inner.send(&request(call)).await?;
            received(reply).await
        };
        Deadline::after(deadline).run(what, work).await
    }
}

impl Inner {
    pub(crate) fn next_call(&self) -> CallId {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) async fn send(&self, message: &ToGuest) -> Result<(), LinkError> {
        let mut frame = Vec::new();
        encode(message, &mut frame)?;
        self.frames.send(frame).await.map_err(|_| LinkError::Closed)
    }

    /// Cancels a session unless it has ended. The message takes its turn behind those that were
    /// sent before, which may have opened the session; only when the queue is full it comes later,
    /// so that dropping never waits.
    pub(crate) fn cancel(&self, call: CallId) {
        if !self.router.abandon(call) {
            return;
        }
        let mut frame = Vec::new();
        let queued = encode(&ToGuest::Cancel { call }, &mut frame).is_ok()
            && self.frames.try_send(frame).is_ok();
        if !queued {
            self.router.note_cancel(call);
        }
    }
}

/// Takes a call out of the router however its future ends.
struct Registered<'a> {
    router: &'a Router,
    call: CallId,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.router.abandon(self.call);
    }
}

async fn received(reply: oneshot::Receiver<ToHost>) -> Result<ToHost, LinkError> {
    match reply.await.map_err(|_| LinkError::Closed)? {
        ToHost::Failed { failure, .. } => Err(LinkError::Refused(failure)),
        message => Ok(message),
    }
}

fn done(answer: ToHost) -> Result<(), LinkError> {
    match answer {
        ToHost::Done { .. } => Ok(()),
        _ => Err(LinkError::Unexpected),
    }
}

fn resumed(answer: ToHost, expected: u64) -> Result<ResumeReport, LinkError> {
    match answer {
        ToHost::Resumed { nonce, hook, .. } if nonce == expected => Ok(ResumeReport { hook }),
        _ => Err(LinkError::Unexpected),
    }
}
