//! Launchers that wait for orders.
//!
//! The program is the whole daemon, and takes a millisecond or two to start. That is as long as a tenth of a restore, so
//! one is started ahead, and waits. A driver never has more than one: machines that are made at once start theirs themselves.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::ALONE;
use crate::VmmError;

/// After one was taken, before the next is started: what it was taken for has the processors first.
const PAUSE: Duration = Duration::from_millis(50);

/// Where launchers come from: a program and its first arguments.
#[derive(Debug)]
pub(crate) struct Launchers {
    prefix: Vec<String>,
    ready: Slot,
    /// Whether the last one was for a VMM without a network.
    alone: Arc<AtomicBool>,
    /// To the thread that starts them ahead, once there is one. A launcher dies with the thread that started it, so this
    /// is none of the runtime's, which come and go.
    taken: Mutex<Option<SyncSender<()>>>,
}

/// What waits.
type Slot = Arc<Mutex<Option<Waiting>>>;

impl Launchers {
    /// Starts nothing yet.
    pub(crate) fn new(prefix: Vec<String>) -> Self {
        Self {
            prefix,
            ready: Slot::default(),
            alone: Arc::default(),
            taken: Mutex::default(),
        }
    }

    /// For messages.
    pub(super) fn program(&self) -> &Path {
        Path::new(self.prefix.first().map_or("", String::as_str))
    }

    /// The one that waits, or one that is started by this thread, with which it dies until it was let go. The next one
    /// expects to be for a VMM as this one is, `alone` without a network or not: a namespace takes 0.5 to 3 ms to make.
    pub(super) fn take(&self, alone: bool) -> Result<Waiting, VmmError> {
        if self.prefix.is_empty() {
            return Err(VmmError::unusable("no launcher is configured"));
        }
        let ready = lock(&self.ready).take();
        self.alone.store(alone, Ordering::Relaxed);
        self.order_next();
        // It may have waited for days, and have been killed.
        if let Some(mut waiting) = ready
            && waiting.waits()
        {
            return Ok(waiting);
        }
        Waiting::start(&self.prefix, false).map_err(VmmError::io("start", self.program()))
    }

    /// Without a thread all launchers are started by those who need them.
    fn order_next(&self) {
        let mut taken = lock(&self.taken);
        let told = taken.as_ref().map(|thread| thread.try_send(()));
        // Full, it has been told already.
        if matches!(told, None | Some(Err(TrySendError::Disconnected(())))) {
            *taken = self.supply().ok();
        }
    }

    /// Starts one, and another one each time that one is taken, until nobody can take any more.
    fn supply(&self) -> io::Result<SyncSender<()>> {
        let (sender, taken) = sync_channel(1);
        let prefix = self.prefix.clone();
        let (ready, alone) = (Arc::clone(&self.ready), Arc::clone(&self.alone));
        thread::Builder::new()
            .name("launchers".into())
            .spawn(move || {
                while is_quiet(&taken) {
                    // Only this thread puts one there.
                    if lock(&ready).is_none() {
                        match Waiting::start(&prefix, alone.load(Ordering::Relaxed)) {
                            Ok(waiting) => *lock(&ready) = Some(waiting),
                            Err(error) => {
                                tracing::debug!(%error, "no launcher is started ahead");
                            }
                        }
                    }
                    if taken.recv().is_err() {
                        break;
                    }
                }
                // They die with this thread.
                lock(&ready).take();
            })?;
        Ok(sender)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is in them is whole at all times.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until none was taken for a while; false when none will be.
fn is_quiet(taken: &Receiver<()>) -> bool {
    loop {
        match taken.recv_timeout(PAUSE) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// A launcher without orders. Dropped it ends, and is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
}

impl Waiting {
    fn start(prefix: &[String], alone: bool) -> io::Result<Self> {
        let Some((program, first)) = prefix.split_first() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        // Nothing here needs a fork: the standard library spawns such a command by posix_spawn.
        let mut child = Command::new(program)
            .args(first)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let stdin = child.stdin.take();
        let mut waiting = Self { child, stdin };
        if alone {
            waiting.say(ALONE.as_bytes())?;
        }
        Ok(waiting)
    }

    /// Whether it has not ended.
    fn waits(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Fails with a broken pipe if it has ended.
    pub(super) fn say(&mut self, text: &[u8]) -> io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(text),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// From here on it is somebody else's.
    pub(super) fn let_go(mut self) {
        self.stdin = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Let go, it has no line to here.
        if self.stdin.is_some() {
            // Both fail only if it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn launchers(words: &[&str]) -> Launchers {
        Launchers::new(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn one_that_was_killed_while_it_waited_is_not_given_out() {
        let launchers = launchers(&["cat"]);
        let mut killed = Waiting::start(&launchers.prefix, false).unwrap();
        let id = killed.child.id();
        killed.child.kill().unwrap();
        until(|| !killed.waits());
        *lock(&launchers.ready) = Some(killed);
        assert_ne!(launchers.take(false).unwrap().child.id(), id);
    }

    #[test]
    fn one_that_cannot_be_started_is_named() {
        let error = launchers(&["/nonexistent/launcher"])
            .take(false)
            .unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/launcher"),
            "{error}"
        );
        let error = launchers(&[]).take(false).unwrap_err();
        assert!(error.to_string().contains("no launcher"), "{error}");
    }

    #[test]
    fn the_next_is_ready_before_it_is_asked_for_and_ends_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("started");
        let script = format!("echo $$ >> {}; exec cat", told.display());
        let launchers = launchers(&["sh", "-c", &script]);
        let mut taken = launchers.take(false).unwrap();
        let started = || -> Vec<u32> {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        until(|| started().len() == 2);
        let ready = started().into_iter().find(|&id| id != taken.child.id());
        until(|| lock(&launchers.ready).is_some());
        let process = format!("/proc/{}", ready.unwrap());
        drop(launchers);
        until(|| !Path::new(&process).exists());
        assert!(taken.waits(), "it was somebody's");
    }

    fn until(mut holds: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "it never holds");
            thread::yield_now();
        }
    }
}
