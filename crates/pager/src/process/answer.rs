//! Answers to a daemon.

use std::os::fd::OwnedFd;
use std::time::Instant;

use super::machine::Machine;
use super::poller::Token;
use super::server::{MAX_MACHINES, Server};
use crate::control::{FromPager, Hello, Numbered, PROTOCOL, Registration, Reply, Request, Served};

impl Server {
    /// Does what a daemon asks for and queues the answer.
    pub(super) fn answer(&mut self, key: u32, Numbered { number, request }: Numbered) {
        let answered = match request {
            Request::Hello => Ok((Reply::Hello(self.hello(key)), Vec::new())),
            Request::Ping => Ok((Reply::Done, Vec::new())),
            Request::Register(registration) => self.register(key, registration).map(done),
            Request::Adopt { vm } => self.adopt(&vm),
            Request::Stats => {
                let stats = self.machines.values().map(Machine::stats).collect();
                Ok((Reply::Stats(stats), Vec::new()))
            }
            Request::Mark { vm, mark } => self.machine(&vm).map(|machine| {
                machine.vm.mark(mark);
                (Reply::Recorded(machine.vm.take_recorded()), Vec::new())
            }),
            Request::Prefetch { vm, hot_pages } => self.machine(&vm).map(|machine| {
                machine.vm.prefetch(&hot_pages);
                done(())
            }),
            Request::Graduate {
                vm,
                bytes_per_second,
            } => self.machine(&vm).map(|machine| {
                machine.registration.graduate = Some(bytes_per_second);
                machine.vm.graduate(bytes_per_second, Instant::now());
                done(())
            }),
            Request::Drain => {
                self.draining = true;
                Ok(done(()))
            }
        };
        let (reply, fds) =
            answered.unwrap_or_else(|reason| (Reply::Refused { reason }, Vec::new()));
        if let Some(connection) = self.connections.get_mut(&key)
            && connection
                .push(&FromPager::Reply { number, reply }, fds)
                .is_err()
        {
            self.disconnect(key);
        }
    }

    fn hello(&mut self, key: u32) -> Hello {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.greeted = true;
        }
        let served = |machine: &Machine| Served {
            vm: machine.name().to_owned(),
            failed: machine.failed().map(str::to_owned),
        };
        let mut vms: Vec<Served> = self.machines.values().map(served).collect();
        // Whoever says hello hears of those that are gone as well.
        let is_gone = |told: &Served| vms.iter().all(|served| served.vm != told.vm);
        let gone: Vec<Served> = std::mem::take(&mut self.unheard)
            .into_iter()
            .filter(is_gone)
            .collect();
        vms.extend(gone);
        Hello {
            protocol: PROTOCOL,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            image_id: self.image_id.to_string(),
            draining: self.draining,
            vms,
        }
    }

    fn machine(&mut self, vm: &str) -> Result<&mut Machine, String> {
        self.machines
            .values_mut()
            .find(|machine| machine.name() == vm)
            .ok_or_else(|| format!("no machine {vm} is served here"))
    }

    fn register(&mut self, key: u32, registration: Registration) -> Result<(), String> {
        let fds = self
            .connections
            .get_mut(&key)
            .and_then(|connection| connection.inbox.take_fds::<3>())
            .ok_or("three descriptors are needed")?;
        if self.draining {
            return Err("this pager is draining".into());
        }
        if self.machines.len() >= MAX_MACHINES {
            return Err(format!("this pager serves {MAX_MACHINES} machines already"));
        }
        if self.machine(&registration.vm).is_ok() {
            return Err(format!("machine {} is served already", registration.vm));
        }
        let mut machine = Machine::new(registration, fds, self.layout.clone(), self.batches)?;
        machine
            .start(Instant::now())
            .map_err(|failure| failure.to_string())?;
        let key = self.new_key();
        self.poller
            .add(&machine.uffd, Token::Faults(key))
            .and_then(|()| self.poller.add(&machine.connection, Token::End(key)))
            .map_err(|error| {
                self.poller.remove(&machine.uffd);
                format!("the machine cannot be watched: {error}")
            })?;
        self.machines.insert(key, machine);
        Ok(())
    }

    fn adopt(&mut self, vm: &str) -> Result<(Reply, Vec<OwnedFd>), String> {
        let machine = self.machine(vm)?;
        let mut registration = machine.registration.clone();
        // What a next pager would be told: what was hot has been filled, and a recording is not continued.
        registration.hot_pages = None;
        registration.record = false;
        let clone = |fd: std::os::fd::BorrowedFd<'_>| {
            fd.try_clone_to_owned().map_err(|error| error.to_string())
        };
        use std::os::fd::AsFd;
        let fds = vec![
            clone(machine.uffd.as_fd())?,
            clone(machine.connection.as_fd())?,
            clone(machine.state_fd.as_fd())?,
        ];
        Ok((Reply::Adopted(registration), fds))
    }
}

fn done((): ()) -> (Reply, Vec<OwnedFd>) {
    (Reply::Done, Vec::new())
}
