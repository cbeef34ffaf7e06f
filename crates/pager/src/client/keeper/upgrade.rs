//! A pager of another build takes the machines to come; those before it drain.

use super::Keeper;
use crate::client::PagerError;
use crate::control::Request;

impl Keeper {
    /// Starts a new pager for machines to come. Those that run keep theirs. If none can be started, all stays as it is.
    pub(super) fn upgrade(&mut self) -> Result<(), PagerError> {
        let old = self.current.take();
        if let Err(error) = self.current(None) {
            self.current = old;
            return Err(error);
        }
        self.drain_all_but_current();
        Ok(())
    }

    /// Has all other pagers end with their last machines. Somebody who was killed in the middle of an upgrade leaves
    /// two that take machines.
    pub(super) fn drain_all_but_current(&mut self) {
        let limit = self.config.limits.answer;
        let current = self.current;
        let mut deaf = Vec::new();
        for (number, pager) in &mut self.pagers {
            if Some(*number) == current || pager.draining {
                continue;
            }
            match pager.link.request(Request::Drain, &[], limit) {
                Ok(_) => pager.draining = true,
                Err(error) => deaf.push((*number, error)),
            }
        }
        // Its machines are not left with one that does not answer.
        for (number, error) in deaf {
            self.replace(number, &error.to_string());
        }
    }
}
