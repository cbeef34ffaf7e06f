//! Going the way of a resume and of a first command while everything else stands still.
//!
//! The first time a machine that woke from an image does something costs many times what the second
//! does: pages are touched that are still the image's, and under emulation the code is translated
//! first. A host that keeps forks ready lets them do that ahead. Nothing of the image runs and
//! nothing that a program could see is changed: what starts is the agent's own program, which ends
//! at once.

use std::time::Duration;

use protocol::{CallId, ExecSpec, Failure, FailureKind, ToHost};

use super::Server;
use crate::exec::{Exec, Step};
use crate::machine::{Machine, StandIn};

/// Time the stand-in gets. It takes some tens of milliseconds on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Words of a failed stand-in that are told.
const KEPT_OUTPUT: usize = 1024;

/// A rehearsal whose stand-in runs.
#[derive(Debug)]
pub(super) struct Rehearsal {
    pub(super) call: CallId,
    pub(super) command: Exec,
    output: Vec<u8>,
}

impl<M: Machine> Server<M> {
    pub(super) fn begin_rehearsal(&mut self, call: CallId) {
        match self.rehearse(call) {
            Ok(rehearsal) => self.rehearsal = Some(rehearsal),
            Err(failure) => self.send(&ToHost::Failed { call, failure }),
        }
    }

    fn rehearse(&mut self, call: CallId) -> Result<Rehearsal, Failure> {
        self.context()?;
        if !self.frozen {
            return Err(Failure::new(
                FailureKind::Phase,
                "the machine is not frozen",
            ));
        }
        self.require_no_rehearsal()?;
        self.machine.rehearse()?;
        let StandIn { argv, enclosure } = self.machine.stand_in();
        let spec = ExecSpec {
            argv,
            // The program's own may be gone, which is for its commands to say.
            cwd: Some("/".to_owned()),
            timeout_ms: u64::try_from(PATIENCE.as_millis()).ok(),
            ..ExecSpec::default()
        };
        let mut command = self.open_exec(call, &spec, enclosure)?;
        command.end_input();
        command.push_input();
        Ok(Rehearsal {
            call,
            command,
            output: Vec::new(),
        })
    }

    pub(super) fn require_no_rehearsal(&self) -> Result<(), Failure> {
        match self.rehearsal {
            Some(_) => Err(Failure::new(FailureKind::Phase, "a rehearsal is under way")),
            None => Ok(()),
        }
    }

    /// The machine is needed now.
    pub(super) fn give_up_rehearsal(&mut self) {
        if let Some(Rehearsal { call, .. }) = self.rehearsal.take() {
            let failure = Failure::new(FailureKind::Phase, "the rehearsal was interrupted");
            self.send(&ToHost::Failed { call, failure });
        }
    }

    /// `true` when the stand-in had something to say.
    pub(super) fn step_rehearsal(&mut self) -> bool {
        let Some(rehearsal) = &mut self.rehearsal else {
            return false;
        };
        match rehearsal.command.step(KEPT_OUTPUT) {
            Step::Blocked => return false,
            Step::Output(_, bytes) => {
                let room = KEPT_OUTPUT - rehearsal.output.len();
                let kept = bytes.len().min(room);
                rehearsal.output.extend_from_slice(&bytes[..kept]);
            }
            Step::Exit(status) => {
                let call = rehearsal.call;
                let said = String::from_utf8_lossy(&rehearsal.output).trim().to_owned();
                self.rehearsal = None;
                self.send(&match status.code {
                    0 => ToHost::Done { call },
                    code => ToHost::Failed {
                        call,
                        failure: Failure::new(
                            FailureKind::Io,
                            format!("the rehearsal ended with {code}: {said}"),
                        ),
                    },
                });
            }
        }
        true
    }
}
