//! The launcher's program, run in a process of its own by the daemon's hidden command.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::spec::{Access, Network, Spec};
use super::{ALONE, GO, jail, network, sys};
use crate::process::{ProcessId, RunMark};

/// Descriptors a VMM may have. QEMU needs about 40 for the machines built here.
pub(crate) const MAX_OPEN_FILES: u64 = 1024;

/// Becomes the VMM that standard input describes: a line of JSON, and another line when the VMM may start. Returns only
/// when that fails; the reason is on standard error.
#[must_use]
pub fn launch_main() -> ExitCode {
    match launch() {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("launcher: {error}");
            ExitCode::FAILURE
        }
    }
}

fn launch() -> io::Result<std::convert::Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut daemon = io::stdin().lock();
    let mut text = String::new();
    daemon.read_line(&mut text)?;
    let alone = text == ALONE;
    if alone {
        network::leave_all()?;
        text.clear();
        daemon.read_line(&mut text)?;
    }
    let spec: Spec = serde_json::from_str(&text)?;
    // The daemon may have died before the line above; then this process has a new parent and no signal comes.
    if rustix::process::getppid() != Pid::from_raw(spec.parent_pid) {
        return Err(io::Error::other("the daemon is gone"));
    }
    std::env::set_current_dir(&spec.run_dir)?;
    let log = append_to(&spec.log)?;
    let console = append_to(spec.console.as_ref().unwrap_or(&spec.log))?;
    let stdin = match surround(&spec, alone) {
        Ok(stdin) => stdin,
        Err(error) => {
            // From here on the log is where the user looks.
            io::Write::write_all(&mut &log, format!("launcher: {error}\n").as_bytes())?;
            return Err(error);
        }
    };
    // A terminal's interrupt key must not reach a VMM that is to outlive the daemon.
    rustix::process::setsid()?;
    set_limits()?;
    write_mark(&spec)?;
    let mut word = Vec::new();
    daemon.read_until(b'\n', &mut word)?;
    if word != GO {
        return Err(io::Error::other("the daemon has given up"));
    }
    rustix::process::set_parent_process_death_signal(None)?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .stdin(stdin)
        .stdout(console)
        .stderr(log.try_clone()?);
    if let Some(uid) = spec.uid {
        command.uid(uid).gid(uid);
    }
    let error = command.exec();
    let text = format!("launcher: cannot run {}: {error}\n", spec.program.display());
    io::Write::write_all(&mut &log, text.as_bytes())?;
    Err(error)
}

/// Makes what the VMM finds around it, and gives its standard input.
fn surround(spec: &Spec, alone: bool) -> io::Result<Stdio> {
    let jail_uid = spec.jail.as_ref().map(|jail| jail.uid);
    // A place in a network takes the place of a namespace without any.
    if !(alone && matches!(spec.network, Network::Absent)) {
        network::enter(&spec.network, jail_uid)?;
    }
    place_descriptors(spec)?;
    let Some(jail) = &spec.jail else {
        return Ok(Stdio::null());
    };
    let stdin = jail::standard_input(jail)?;
    jail::build(jail)?;
    Ok(stdin.map_or_else(Stdio::null, Stdio::from))
}

fn append_to(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn place_descriptors(spec: &Spec) -> io::Result<()> {
    for file in &spec.files {
        let write = match file.access {
            Access::Read => false,
            Access::ReadWrite => true,
        };
        let opened = OpenOptions::new().read(true).write(write).open(&file.path);
        let opened = opened.map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", file.path.display()))
        })?;
        sys::place(OwnedFd::from(opened), file.fd)?;
    }
    for listener in &spec.listeners {
        match fs::remove_file(&listener.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        sys::place(
            OwnedFd::from(UnixListener::bind(&listener.name)?),
            listener.fd,
        )?;
    }
    Ok(())
}

fn set_limits() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // A core would hold the guest's memory.
    rustix::process::setrlimit(Resource::Core, none)?;
    let files = Rlimit {
        current: Some(MAX_OPEN_FILES),
        maximum: Some(MAX_OPEN_FILES),
    };
    rustix::process::setrlimit(Resource::Nofile, files)?;
    Ok(())
}

fn write_mark(spec: &Spec) -> io::Result<()> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let own = ProcessId::of(pid)?;
    let mark = RunMark {
        pid,
        start_time: own.start_time,
        boot_id: spec.boot_id.clone(),
    };
    let part = format!("{}.part", RunMark::FILE);
    fs::write(&part, serde_json::to_vec(&mark)?)?;
    fs::rename(&part, RunMark::FILE)
}
