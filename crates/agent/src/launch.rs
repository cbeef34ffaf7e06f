//! Starting processes, the machine's program and commands alike.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::ExitStatus;
use rustix::process::{Gid, Uid};

use crate::account::Account;
use crate::enclosure::Enclosure;
use crate::sys::{BeforeExec, prepare};

/// A process to start.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub(crate) argv: &'a [String],
    pub(crate) env: &'a [(String, String)],
    pub(crate) cwd: &'a Path,
    pub(crate) account: &'a Account,
    pub(crate) enclosure: Option<&'a Enclosure>,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Standard input is a terminal, which is to be the process's own.
    pub(crate) terminal: bool,
}

/// A process that could not be started, in the words and numbers a shell would use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotStarted {
    pub(crate) code: i32,
    pub(crate) message: String,
}

/// Starts a process as the leader of a session and a process group of its own. Returns its id.
pub(crate) fn launch(launch: Launch<'_>) -> Result<u32, NotStarted> {
    let Some((program, arguments)) = launch.argv.split_first() else {
        return Err(NotStarted {
            code: ExitStatus::NOT_EXECUTABLE,
            message: "no program named".to_owned(),
        });
    };
    if !launch.cwd.is_dir() {
        let message = format!("working directory {} does not exist", launch.cwd.display());
        return Err(NotStarted {
            code: ExitStatus::NOT_EXECUTABLE,
            message,
        });
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        .current_dir(launch.cwd)
        .stdin(Stdio::from(launch.stdin))
        .stdout(Stdio::from(launch.stdout))
        .stderr(Stdio::from(launch.stderr));
    prepare(
        &mut command,
        BeforeExec {
            enclosure: launch.enclosure.cloned(),
            terminal: launch.terminal,
            become_user: switch_to(launch.account),
        },
    );
    // The child is waited for by `Children`, not through the handle.
    command
        .spawn()
        .map(|child| child.id())
        .map_err(|error| not_started(program, &error))
}

/// Only root can become somebody else, and in a guest the agent is root. Elsewhere processes stay
/// who they are.
fn switch_to(account: &Account) -> Option<(Vec<Gid>, Gid, Uid)> {
    rustix::process::geteuid().is_root().then(|| {
        let groups = account
            .groups
            .iter()
            .map(|gid| Gid::from_raw(*gid))
            .collect();
        (
            groups,
            Gid::from_raw(account.gid),
            Uid::from_raw(account.uid),
        )
    })
}

fn not_started(program: &str, error: &io::Error) -> NotStarted {
    let code = match error.kind() {
        io::ErrorKind::NotFound => ExitStatus::NOT_FOUND,
        _ => ExitStatus::NOT_EXECUTABLE,
    };
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "not found".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    };
    NotStarted {
        code,
        message: format!("{program}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn processes_start_with_no_signal_blocked() {
        // What PID 1 does to itself.
        let _signals = crate::sys::child_signals().unwrap();
        let (mut read, write) = std::io::pipe().unwrap();
        let argv = ["grep", "SigBlk", "/proc/self/status"].map(str::to_owned);
        let pid = launch(Launch {
            argv: &argv,
            env: &[(
                "PATH".to_owned(),
                crate::environment::DEFAULT_PATH.to_owned(),
            )],
            cwd: Path::new("/"),
            account: &crate::account::resolve("", "", "").unwrap(),
            enclosure: None,
            stdin: File::open("/dev/null").unwrap().into(),
            stdout: write.try_clone().unwrap().into(),
            stderr: write.into(),
            terminal: false,
        })
        .unwrap();
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "SigBlk:\t0000000000000000\n");
        let pid = rustix::process::Pid::from_raw(pid as i32);
        rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
    }
}
