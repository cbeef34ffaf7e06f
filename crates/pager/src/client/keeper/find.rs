//! Taking over what an earlier daemon has left.

use std::path::Path;

use rustix::io::Errno;

use super::{Keeper, Machine};
use crate::client::attach::identify;
use crate::client::pager::Pager;
use crate::client::{Event, PagerError};
use crate::control::{Reply, Request, Served};

impl Keeper {
    /// Takes over the pager behind `socket` with its machines, if somebody answers there.
    pub(super) fn find(&mut self, number: u32, socket: &Path) -> Result<(), PagerError> {
        let report = self.reporter(number);
        let Some((pager, hello)) = Pager::find(&self.config, socket, report)? else {
            return Ok(());
        };
        if hello.image_id != self.image_id {
            return Err(PagerError::lost(format!(
                "the one at {} serves image {}",
                socket.display(),
                hello.image_id
            )));
        }
        self.pagers.insert(number, pager);
        if !hello.draining {
            self.current = Some(number);
        }
        for served in hello.vms {
            match self.adopt(number, &served.vm) {
                Ok(()) => {}
                // It has ended since the pager said what it serves, or while nobody heard why.
                Err(PagerError::Refused { .. }) => {
                    self.was_given_up(served);
                    continue;
                }
                Err(error) if is_of_the_dead(&error) => {
                    self.was_given_up(served);
                    continue;
                }
                Err(error) => return Err(error),
            }
            if let Some(reason) = served.failed {
                self.fail(&served.vm, &reason);
            }
        }
        Ok(())
    }

    fn was_given_up(&self, served: Served) {
        if let Some(reason) = served.failed {
            let vm = served.vm;
            (self.on_event)(Event::Failed { vm, reason });
        }
    }

    fn adopt(&mut self, number: u32, vm: &str) -> Result<(), PagerError> {
        let Some(pager) = self.pagers.get_mut(&number) else {
            return Err(PagerError::lost("it was given up"));
        };
        let request = Request::Adopt { vm: vm.to_owned() };
        let answer = pager
            .link
            .request(request, &[], self.config.limits.answer)?;
        let (Reply::Adopted(registration), Some([uffd, connection, state])) =
            (answer.reply, answer.fds)
        else {
            return Err(PagerError::lost("it keeps its machines to itself"));
        };
        let process = identify(&connection, None)?;
        let machine = Machine {
            registration,
            uffd,
            connection,
            state,
            process,
            pager: Some(number),
            failed: false,
        };
        self.machines.insert(vm.to_owned(), machine);
        Ok(())
    }
}

/// Whether a process could not be identified because it has ended: the kernel has another word for that in each way
/// of asking.
fn is_of_the_dead(error: &PagerError) -> bool {
    let PagerError::Io { source, .. } = error else {
        return false;
    };
    [Errno::SRCH, Errno::INVAL]
        .map(Errno::raw_os_error)
        .contains(&source.raw_os_error().unwrap_or(0))
}
