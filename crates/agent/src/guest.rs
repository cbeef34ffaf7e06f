//! The real machine: the guest this agent is PID 1 of.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use protocol::{Failure, FailureKind, Identity, MachineId, StartSpec};
use rustix::system::{RebootCommand, reboot, sethostname};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::cmdline::PowerOff;
use crate::enclosure::Enclosure;
use crate::freezer::Freezer;
use crate::identity::IdentityFiles;
use crate::machine::{Machine, StandIn};
use crate::network::{self, Network};
use crate::root::Writable;
use crate::{boot, root, sys};

#[derive(Debug)]
pub(crate) struct Guest {
    /// Opened before the image has a say in what `/dev` holds.
    random: File,
    /// A kernel that has none runs programs all the same; only images cannot be taken.
    freezer: io::Result<Freezer>,
    root: Option<Root>,
    network: Option<Network>,
    /// How often this memory became another machine.
    generation: u64,
    power_off: PowerOff,
}

/// What there is once the root file system stands.
#[derive(Debug)]
struct Root {
    writable: Writable,
    identity: IdentityFiles,
}

/// Who the machine is; common to a start and a resume.
struct Person<'a> {
    instance_id: &'a str,
    hostname: &'a str,
    address: Option<Ipv4Addr>,
    machine_id: MachineId,
    entropy: &'a [u8],
    wall_clock_ns: u64,
}

impl Guest {
    pub(crate) fn new(power_off: PowerOff) -> io::Result<Self> {
        let random = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/urandom")?;
        Ok(Guest {
            random,
            freezer: Freezer::create(),
            root: None,
            network: None,
            generation: 0,
            power_off,
        })
    }

    /// Every step must succeed. Entropy comes before anything a program could be waiting for.
    fn become_person(&self, person: &Person<'_>) -> Result<(), Failure> {
        step(
            "credit entropy",
            sys::credit_entropy(self.random.as_fd(), person.entropy),
        )?;
        step(
            "reseed the random generator",
            sys::reseed(self.random.as_fd()),
        )?;
        step("set the clock", set_clock(person.wall_clock_ns))?;
        step(
            "set the host name",
            sethostname(person.hostname.as_bytes()).map_err(Into::into),
        )?;
        let Some(root) = &self.root else {
            return Err(Failure::new(
                FailureKind::Phase,
                "the machine has no root file system",
            ));
        };
        let Person {
            hostname,
            address,
            machine_id,
            instance_id,
            ..
        } = *person;
        step(
            "write the identity",
            root.identity
                .write(hostname, address, machine_id, instance_id, self.generation),
        )
    }
}

impl Guest {
    fn freezer(&self) -> Result<&Freezer, Failure> {
        self.freezer.as_ref().map_err(|error| {
            Failure::new(
                FailureKind::Io,
                format!("the guest's kernel cannot freeze programs: {error}"),
            )
        })
    }
}

impl Machine for Guest {
    fn set_up(&mut self, spec: &StartSpec) -> Result<(), Failure> {
        let writable = step("set up the root file system", root::switch())?;
        let identity = step("set up the identity files", root::mount_identity())?;
        self.root = Some(Root { writable, identity });
        self.become_person(&Person {
            instance_id: &spec.instance_id,
            hostname: &spec.hostname,
            address: spec.network.as_ref().map(|network| network.address),
            machine_id: spec.machine_id,
            entropy: &spec.entropy,
            wall_clock_ns: spec.wall_clock_ns,
        })?;
        step("bring the loopback interface up", network::loopback_up())?;
        if let Some(config) = spec.network.clone() {
            self.network = Some(step("set up the network", Network::bring_up(config))?);
        }
        Ok(())
    }

    fn assume(&mut self, identity: &Identity) -> Result<(), Failure> {
        if identity.network.is_some() && self.network.is_none() {
            return Err(Failure::new(
                FailureKind::Phase,
                "the machine was started without a network",
            ));
        }
        if identity.new_machine {
            self.generation += 1;
        }
        let known = self.network.as_ref().map(Network::config);
        let network = identity.network.as_ref().or(known);
        self.become_person(&Person {
            instance_id: &identity.instance_id,
            hostname: &identity.hostname,
            address: network.map(|network| network.address),
            machine_id: identity.machine_id,
            entropy: &identity.entropy,
            wall_clock_ns: identity.wall_clock_ns,
        })?;
        match &mut self.network {
            Some(network) => step(
                "wake the network",
                network.wake(identity.network.as_ref(), identity.new_machine),
            ),
            None => Ok(()),
        }
    }

    fn rehearse(&mut self) -> Result<(), Failure> {
        step(
            "reseed the random generator",
            sys::reseed(self.random.as_fd()),
        )?;
        if let Some(root) = &self.root {
            step("write the identity again", root.identity.rewrite())?;
        }
        if let Some(network) = &self.network {
            network.rehearse();
        }
        step("freeze nothing", self.freezer()?.rehearse())
    }

    fn stand_in(&self) -> StandIn {
        StandIn {
            argv: boot::stand_in(),
            enclosure: self.freezer.as_ref().ok().map(|it| it.aside().clone()),
        }
    }

    fn sync(&mut self) {
        rustix::fs::sync();
    }

    fn enclosure(&self) -> Option<&Enclosure> {
        self.freezer.as_ref().ok().map(Freezer::enclosure)
    }

    fn freeze(&mut self) -> Result<(), Failure> {
        self.freezer()?.freeze()
    }

    fn thaw(&mut self) -> Result<(), Failure> {
        self.freezer()?.thaw()
    }

    fn run_ahead(&mut self, ahead: bool) {
        let _ = sys::run_ahead(ahead);
    }

    fn power_off(&mut self) {
        // Everybody but PID 1; there is nobody left to ask politely.
        let _ = sys::kill(-1, libc::SIGKILL);
        match &self.root {
            Some(root) => root.writable.seal(),
            None => rustix::fs::sync(),
        }
        if let Err(error) = reboot(command(self.power_off)) {
            eprintln!("coppice-agent: power off: {error}");
        }
    }
}

/// What the kernel is told at the end.
fn command(power_off: PowerOff) -> RebootCommand {
    match power_off {
        PowerOff::Acpi => RebootCommand::PowerOff,
        PowerOff::Reset => RebootCommand::Restart,
    }
}

fn set_clock(wall_clock_ns: u64) -> io::Result<()> {
    const SECOND: u64 = 1_000_000_000;
    let time = Timespec {
        tv_sec: i64::try_from(wall_clock_ns / SECOND).map_err(io::Error::other)?,
        tv_nsec: (wall_clock_ns % SECOND) as _,
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, Failure> {
    result.map_err(|error| Failure::new(FailureKind::Io, format!("{what}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine without a switch that is told to power off stands still for ever instead.
    #[test]
    fn a_machine_ends_in_the_way_that_its_vmm_understands() {
        assert_eq!(command(PowerOff::Acpi), RebootCommand::PowerOff);
        assert_eq!(command(PowerOff::Reset), RebootCommand::Restart);
    }
}
