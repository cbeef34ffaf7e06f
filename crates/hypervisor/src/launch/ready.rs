//! Launchers that wait for orders.
//!
//! The program is the whole daemon, and takes a millisecond or two to start. That is as long as a tenth of a restore, so
//! the next launcher is started when one is taken, and waits. There is never more than one.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::VmmError;

/// For a host that is short of everything.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// Where launchers come from: a program and its first arguments.
#[derive(Debug)]
pub(crate) struct Launchers {
    prefix: Vec<String>,
    /// From the thread that starts them, once there is one. A launcher dies with the thread that started it, so this is
    /// none of the runtime's, which come and go.
    ready: Mutex<Option<Receiver<io::Result<Waiting>>>>,
}

impl Launchers {
    /// Starts nothing yet.
    pub(crate) fn new(prefix: Vec<String>) -> Self {
        Self {
            prefix,
            ready: Mutex::new(None),
        }
    }

    /// For messages.
    pub(super) fn program(&self) -> &Path {
        Path::new(self.prefix.first().map_or("", String::as_str))
    }

    /// One that waits. Blocks while it is started, if none is ready.
    pub(super) fn take(&self) -> Result<Waiting, VmmError> {
        if self.prefix.is_empty() {
            return Err(VmmError::unusable("no launcher is configured"));
        }
        let failed = VmmError::io("start", self.program());
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        // The first may have waited for days, and have been killed, or have failed for want of something.
        if let Ok(mut waiting) = receive(&mut ready, &self.prefix)
            && waiting.waits()
        {
            return Ok(waiting);
        }
        receive(&mut ready, &self.prefix).map_err(failed)
    }
}

/// What the thread has next; it is started if it is not there.
fn receive(
    ready: &mut Option<Receiver<io::Result<Waiting>>>,
    prefix: &[String],
) -> io::Result<Waiting> {
    let receiver = match ready {
        Some(receiver) => receiver,
        None => ready.insert(supply(prefix.to_vec())?),
    };
    match receiver.recv_timeout(START_DEADLINE) {
        Ok(started) => started,
        Err(RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(RecvTimeoutError::Disconnected) => {
            *ready = None;
            Err(io::Error::other("what starts launchers has ended"))
        }
    }
}

/// Has one started before it is asked for, until nobody can ask any more.
fn supply(prefix: Vec<String>) -> io::Result<Receiver<io::Result<Waiting>>> {
    // Without room in it: what is sent is taken at once.
    let (sender, receiver): (SyncSender<_>, _) = sync_channel(0);
    thread::Builder::new()
        .name("launchers".into())
        .spawn(move || while sender.send(Waiting::start(&prefix)).is_ok() {})?;
    Ok(receiver)
}

/// A launcher without orders. Dropped it ends, and is waited for.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
}

impl Waiting {
    fn start(prefix: &[String]) -> io::Result<Self> {
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
        Ok(Self { child, stdin })
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

    fn launchers(words: &[&str]) -> Launchers {
        Launchers::new(words.iter().map(|&word| word.to_owned()).collect())
    }

    /// Launchers that come in this order.
    fn given(prepared: Vec<io::Result<Waiting>>) -> Launchers {
        let launchers = launchers(&["cat"]);
        let (sender, receiver) = sync_channel(prepared.len());
        for one in prepared {
            sender.send(one).unwrap();
        }
        *launchers.ready.lock().unwrap() = Some(receiver);
        launchers
    }

    fn cat() -> Waiting {
        Waiting::start(&["cat".to_owned()]).unwrap()
    }

    #[test]
    fn one_that_was_killed_while_it_waited_is_not_given_out() {
        let (mut killed, good) = (cat(), cat());
        killed.child.kill().unwrap();
        killed.child.wait().unwrap();
        let id = good.child.id();
        let launchers = given(vec![Ok(killed), Ok(good)]);
        assert_eq!(launchers.take().unwrap().child.id(), id);
    }

    #[test]
    fn a_failure_of_long_ago_is_not_told() {
        let launchers = given(vec![Err(io::ErrorKind::OutOfMemory.into()), Ok(cat())]);
        launchers.take().unwrap();
    }

    #[test]
    fn one_that_cannot_be_started_is_named() {
        let error = launchers(&["/nonexistent/launcher"]).take().unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/launcher"),
            "{error}"
        );
        let error = launchers(&[]).take().unwrap_err();
        assert!(error.to_string().contains("no launcher"), "{error}");
    }

    #[test]
    fn the_next_is_ready_before_it_is_asked_for_and_ends_with_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("started");
        let script = format!("echo $$ >> {}; exec cat", told.display());
        let launchers = launchers(&["sh", "-c", &script]);
        let mut taken = launchers.take().unwrap();
        let started = || -> Vec<u32> {
            let text = std::fs::read_to_string(&told).unwrap_or_default();
            text.lines().map(|line| line.parse().unwrap()).collect()
        };
        until(|| started().len() == 2);
        let ready = started().into_iter().find(|&id| id != taken.child.id());
        let process = format!("/proc/{}", ready.unwrap());
        assert!(Path::new(&process).exists());
        drop(launchers);
        until(|| !Path::new(&process).exists());
        assert!(taken.waits(), "it was somebody's");
    }

    fn until(mut holds: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed() < START_DEADLINE, "it never holds");
            thread::yield_now();
        }
    }
}
