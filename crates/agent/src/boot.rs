//! PID 1 of a freshly booted guest, up to the moment the host is listened to.

use std::io;
use std::path::Path;

use crate::children::Reaping;
use crate::guest::Guest;
use crate::machine::Machine;
use crate::server::{Hangup, Server};
use crate::{modules, ports, root};

/// Runs the agent. Returns only when the machine could not be switched off; the kernel then panics,
/// which ends the VMM as well.
pub fn run() {
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
