//! Waking from a memory image: the machine becomes another one, or goes on as itself, before
//! anything is announced.
//!
//! The programs go on when the identity is complete, and before the post-fork command runs: that
//! command is how an image tells a running program about its new life.

use std::time::{Duration, Instant};

use protocol::{CallId, ExecSpec, Failure, FailureKind, HookResult, Identity, PostFork, ToHost};

use super::Server;
use crate::exec::{Exec, Step};
use crate::machine::Machine;

/// Output of a post-fork command that is kept for the report.
const KEPT_OUTPUT: usize = 4096;

/// A resume whose post-fork command runs.
#[derive(Debug)]
pub(super) struct PendingResume {
    pub(super) call: CallId,
    nonce: u64,
    pub(super) hook: Exec,
    output: Vec<u8>,
    begun: Instant,
}

impl<M: Machine> Server<M> {
    pub(super) fn begin_resume(&mut self, call: CallId, nonce: u64, identity: &Identity) {
        match self.resume(call, nonce, identity) {
            Ok(Some(pending)) => self.resume = Some(pending),
            Ok(None) => self.send(&ToHost::Resumed {
                call,
                nonce,
                hook: None,
            }),
            Err(failure) => self.send(&ToHost::Failed { call, failure }),
        }
    }

    fn resume(
        &mut self,
        call: CallId,
        nonce: u64,
        identity: &Identity,
    ) -> Result<Option<PendingResume>, Failure> {
        self.context()?;
        if self.resume.is_some() {
            return Err(Failure::new(FailureKind::Phase, "a resume is under way"));
        }
        identity.validate()?;
        self.give_up_rehearsal();
        self.machine.assume(identity)?;
        if let Some(context) = &mut self.context {
            context.hostname.clone_from(&identity.hostname);
        }
        self.thaw()?;
        let Some(PostFork {
            argv,
            env,
            timeout_ms,
        }) = identity.post_fork.clone()
        else {
            return Ok(None);
        };
        let spec = ExecSpec {
            argv,
            env,
            timeout_ms: Some(timeout_ms.max(1)),
            ..ExecSpec::default()
        };
        let enclosure = self.machine.enclosure().cloned();
        let mut hook = self.open_exec(call, &spec, enclosure)?;
        hook.end_input();
        hook.push_input();
        Ok(Some(PendingResume {
            call,
            nonce,
            hook,
            output: Vec::new(),
            begun: Instant::now(),
        }))
    }

    /// `true` when the post-fork command had something to say.
    pub(super) fn step_resume(&mut self) -> bool {
        let Some(pending) = &mut self.resume else {
            return false;
        };
        match pending.hook.step(KEPT_OUTPUT) {
            Step::Blocked => return false,
            Step::Output(_, bytes) => {
                let room = KEPT_OUTPUT - pending.output.len();
                pending
                    .output
                    .extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Step::Exit(status) => {
                let (call, nonce) = (pending.call, pending.nonce);
                let output = std::mem::take(&mut pending.output);
                let duration = pending.begun.elapsed();
                self.resume = None;
                self.send(&match status.code {
                    0 => ToHost::Resumed {
                        call,
                        nonce,
                        hook: Some(result(output, duration)),
                    },
                    _ => ToHost::Failed {
                        call,
                        failure: hook_failure(status.code, status.timed_out, &output),
                    },
                });
            }
        }
        true
    }
}

fn result(output: Vec<u8>, duration: Duration) -> HookResult {
    HookResult {
        output,
        duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    }
}

fn hook_failure(code: i32, timed_out: bool, output: &[u8]) -> Failure {
    let said = String::from_utf8_lossy(output);
    let said = said.trim();
    let (kind, what) = match timed_out {
        true => (
            FailureKind::TimedOut,
            "post-fork command ran out of time".to_owned(),
        ),
        false => (
            FailureKind::Invalid,
            format!("post-fork command ended with {code}"),
        ),
    };
    Failure::new(
        kind,
        if said.is_empty() {
            what
        } else {
            format!("{what}: {said}")
        },
    )
}
