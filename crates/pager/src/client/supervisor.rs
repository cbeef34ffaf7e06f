//! What the daemon calls.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use memory::{Image, ImageId};

use super::keeper::{Command, Keeper, Signal};
use super::{Config, PagerError, attach};
use crate::control::{NamedStats, Reply, Request};
use crate::hot::{HotPages, Mark};

/// Signals waiting for the keeper: machines have three events each, commands wait for their answers.
const MAX_SIGNALS: usize = 16 << 10;

/// What happens without being asked for. Called in the supervisor's thread: it must not wait, nor call back.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The machine was killed, because its memory cannot be had or nobody can serve it. Its descriptors are kept
    /// until its process is gone, so no thread of it ever reads a zero page in place of data.
    Failed {
        /// The machine's name.
        vm: String,
        /// What the user should read.
        reason: String,
    },
    /// The machine's process has ended, for whatever reason. The last event of a machine.
    Gone(NamedStats),
    /// The machine is complete and is no longer served. The last event of a machine.
    Graduated(NamedStats),
    /// A pager was lost, and another one serves its machines.
    TookOver {
        /// Names of the machines that it has now. Others of the image may have a pager of their own.
        vms: Vec<String>,
        /// From learning of the loss to the last machine being served again.
        took: Duration,
    },
}

/// A machine that is about to hand over its memory.
#[derive(Debug)]
pub struct Attach<'a> {
    /// Its name; one of each is served at a time.
    pub vm: String,
    /// Where its VMM connects.
    pub listener: &'a UnixListener,
    /// Process number of the VMM; another one is refused.
    pub expected_pid: Option<u32>,
    /// How long the VMM may take to connect and say its message.
    pub limit: Duration,
    /// Pages to fill ahead of faults.
    pub hot_pages: Option<HotPages>,
    /// Whether to record what it touches, until [`Mark::FirstExec`].
    pub record: bool,
}

/// Keeps the pagers of one image, and a duplicate of everything they were given.
///
/// One thread owns all of this; the methods send it commands and wait for the answers. Dropping the supervisor
/// leaves pagers that serve machines to themselves, for a later daemon to [`Supervisor::adopt`]; while nobody
/// supervises, the loss of a pager stops its machines until then.
#[derive(Debug)]
pub struct Supervisor {
    signals: SyncSender<Signal>,
    thread: Option<JoinHandle<()>>,
    image_id: ImageId,
    /// No command takes longer.
    limit: Duration,
}

impl Supervisor {
    /// Starts a pager for the image.
    pub fn start(
        config: Config,
        on_event: impl Fn(Event) + Send + 'static,
    ) -> Result<Self, PagerError> {
        let supervisor = Self::adopt(config, on_event)?;
        supervisor.command(Command::Ready)?;
        Ok(supervisor)
    }

    /// Finds the pagers that another daemon has left, with their machines. Machines that were given up meanwhile
    /// are killed now. If there are none, the first machine starts one.
    pub fn adopt(
        config: Config,
        on_event: impl Fn(Event) + Send + 'static,
    ) -> Result<Self, PagerError> {
        let image = Image::open(&config.image_dir)?;
        let image_id = image.manifest().image_id.clone();
        let (signals, inbox) = sync_channel(MAX_SIGNALS);
        let limit = config.limits.start * 4 + config.limits.answer + config.limits.silence;
        let mut keeper = Keeper::new(config, &image, signals.clone(), Box::new(on_event));
        keeper.find_pagers()?;
        let thread = std::thread::Builder::new()
            .name("pager-keeper".into())
            .spawn(move || keeper.run(&inbox))
            .map_err(PagerError::io("start a thread"))?;
        Ok(Self {
            signals,
            thread: Some(thread),
            image_id,
            limit,
        })
    }

    /// The image that is served.
    #[must_use]
    pub fn image_id(&self) -> &ImageId {
        &self.image_id
    }

    /// Waits for a VMM's handshake and has the machine served. On an error after the handshake its process has
    /// been killed. The VMM's own call that leads to the handshake must run beside this one: it may fault before
    /// it returns.
    pub fn attach(&self, attach: Attach<'_>) -> Result<(), PagerError> {
        let handover = attach::take(attach.listener, attach.expected_pid, attach.limit)?;
        self.command(|answer| Command::Attach {
            vm: attach.vm,
            handover,
            hot_pages: attach.hot_pages,
            record: attach.record,
            answer,
        })
    }

    /// Names of the machines that are served, by any pager of the image.
    pub fn vms(&self) -> Result<Vec<String>, PagerError> {
        self.command(Command::Vms)
    }

    /// Counters of all machines.
    pub fn stats(&self) -> Result<Vec<NamedStats>, PagerError> {
        self.command(Command::Stats)
    }

    /// Notes how far a guest is. Gives what was recorded when that ends the recording.
    pub fn mark(&self, vm: &str, mark: Mark) -> Result<Option<HotPages>, PagerError> {
        let request = Request::Mark {
            vm: vm.to_owned(),
            mark,
        };
        match self.ask(vm, request)? {
            Reply::Recorded(recorded) => Ok(recorded),
            _ => Ok(None),
        }
    }

    /// Has pages filled ahead of faults.
    pub fn prefetch(&self, vm: &str, hot_pages: HotPages) -> Result<(), PagerError> {
        let request = Request::Prefetch {
            vm: vm.to_owned(),
            hot_pages,
        };
        self.ask(vm, request).map(drop)
    }

    /// Has a machine completed in the background, at most at this rate, and let go; see [`Event::Graduated`].
    pub fn graduate(&self, vm: &str, bytes_per_second: u64) -> Result<(), PagerError> {
        let request = Request::Graduate {
            vm: vm.to_owned(),
            bytes_per_second,
        };
        self.ask(vm, request).map(drop)
    }

    /// Starts a new pager for machines to come. Those that run keep theirs, which ends with the last of them.
    pub fn upgrade(&self) -> Result<(), PagerError> {
        self.command(Command::Upgrade)
    }

    /// Process numbers of the pagers, the one for machines to come last.
    pub fn pids(&self) -> Result<Vec<i32>, PagerError> {
        self.command(Command::Pids)
    }

    fn ask(&self, vm: &str, request: Request) -> Result<Reply, PagerError> {
        let vm = vm.to_owned();
        self.command(|answer| Command::Ask {
            vm,
            request,
            answer,
        })
    }

    fn command<T: Send + 'static>(
        &self,
        make: impl FnOnce(SyncSender<Result<T, PagerError>>) -> Command,
    ) -> Result<T, PagerError> {
        let (answer, answered) = sync_channel(1);
        self.signals
            .try_send(Signal::Command(make(answer)))
            .map_err(|_| PagerError::lost("its supervisor is overloaded or gone"))?;
        answered
            .recv_timeout(self.limit)
            .map_err(|_| PagerError::Deadline {
                what: "an answer of the supervisor",
                limit: self.limit,
            })?
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Cannot fail for long: the keeper empties its queue.
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
