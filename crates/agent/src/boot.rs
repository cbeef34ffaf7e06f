//! PID 1 of a freshly booted guest, up to the moment the host is listened to.

use std::io;
use std::path::Path;

use crate::children::Reaping;
use crate::guest::Guest;
use crate::machine::Machine;
use crate::server::{Hangup, Server};
use crate::{modules, ports, root};

/// The agent's program by a name that no change of the image's files takes away.
const SELF: &str = "/proc/self/exe";
/// Argument that makes the program end at once. PID 1 does not look at its arguments: they are the
/// kernel's.
const STAND_IN: &str = "stand-in";

/// The command that is the agent's own and does nothing.
pub(crate) fn stand_in() -> Vec<String> {
    vec![SELF.to_owned(), STAND_IN.to_owned()]
}

/// Runs the agent. As PID 1 it returns only when the machine could not be switched off; the kernel
/// then panics, which ends the VMM as well.
pub fn run() {
    if std::process::id() != 1 && std::env::args().nth(1).as_deref() == Some(STAND_IN) {
        return;
    }
    if let Err(error) = serve() {
        eprintln!("coppice-agent: {error}");
        if let Ok(mut guest) = Guest::new() {
            guest.power_off();
        }
    }
}

fn serve() -> io::Result<()> {
    root::mount_kernel_file_systems()?;
    modules::load_all(Path::new("/modules"))?;
    let port = ports::open(ports::AGENT)?;
    let log = ports::open(ports::LOG)?;
    Server::new(
        Guest::new()?,
        port,
        Some(log),
        Hangup::Wait,
        Reaping::Everything,
    )?
    .run()
}
