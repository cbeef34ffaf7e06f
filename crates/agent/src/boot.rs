//! PID 1 of a freshly booted guest, up to the moment the host is listened to.

use std::io;
use std::path::Path;

use crate::children::Reaping;
use crate::cmdline::{Reach, Words};
use crate::guest::Guest;
use crate::listener::{self, Listener, Peers};
use crate::log::Log;
use crate::machine::Machine;
use crate::server::{Channel, Server};
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
    let words = root::mount_kernel_file_systems().and_then(|()| Words::read());
    // Without its words the agent does not know how to end the machine either: that the kernel panics
    // is an end under every VMM.
    let power_off = words.as_ref().ok().map(|words| words.power_off);
    if let Err(error) = words.and_then(serve) {
        eprintln!("coppice-agent: {error}");
        if let Some(power_off) = power_off
            && let Ok(mut guest) = Guest::new(power_off)
        {
            guest.power_off();
        }
    }
}

fn serve(words: Words) -> io::Result<()> {
    let modules = Path::new("/modules");
    modules::load_all(modules, modules::COMMON)?;
    let (channel, log) = match words.reach {
        Reach::SerialPort => (
            Channel::Port(ports::open(ports::AGENT)?),
            Log::Stream(ports::open(ports::LOG)?),
        ),
        Reach::Vsock => {
            modules::load_all(modules, modules::VSOCK)?;
            (
                Channel::Listener(Listener::vsock(listener::AGENT, Peers::Host)?),
                Log::Listener(Listener::vsock(listener::LOG, Peers::Host)?),
            )
        }
    };
    let guest = Guest::new(words.power_off)?;
    Server::new(guest, channel, log, Reaping::Everything)?.run()
}
