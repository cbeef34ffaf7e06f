//! Which operation is accepted in which state: the table of the specification.

use crate::{Refusal, State};

/// What somebody asks of an existing instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Boot a stopped machine; `overrides` when new entrypoint or cmd come with it.
    Start {
        /// The request replaces entrypoint or cmd.
        overrides: bool,
    },
    /// Power off.
    Stop,
    /// Write a memory image and end the VMM; `options` when the request has any.
    Standby {
        /// The request carries options.
        options: bool,
    },
    /// Wake from the memory image.
    Restore,
    /// Mark as template.
    Promote,
    /// Remove the template mark.
    Demote,
    /// Make a fork of it.
    Fork {
        /// Fork a running source through a capture.
        from_running: bool,
    },
    /// Run a command inside.
    Exec,
    /// Copy files in or out.
    Copy,
    /// Look at a file inside.
    Stat,
    /// Remove it for good.
    Delete,
}

/// What to do with an accepted operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Carry it out.
    Proceed,
    /// It is so already: answer success without doing anything.
    NoOp,
}

/// Decides whether `operation` is accepted in `state` while `live_forks` instances
/// have this one as their parent.
pub fn admit(operation: Operation, state: State, live_forks: u64) -> Result<Verdict, Refusal> {
    use Operation::{
        Copy, Delete, Demote, Exec, Fork, Promote, Restore, Standby, Start, Stat, Stop,
    };
    if live_forks > 0 && guarded_by_lock(operation) {
        return Err(locked(operation, live_forks));
    }
    let verdict = match (operation, state) {
        (Start { .. }, State::Stopped)
        | (Stop, State::Running | State::Initializing | State::Paused | State::Shutdown)
        | (Standby { .. }, State::Running)
        | (Restore | Promote, State::Standby)
        | (Demote, State::Template)
        | (Fork { .. }, State::Stopped | State::Standby | State::Template)
        | (Fork { from_running: true } | Exec | Copy | Stat, State::Running)
        | (Delete, _) => Verdict::Proceed,
        (Start { overrides: false } | Restore, State::Running | State::Initializing)
        | (Stop, State::Stopped)
        | (Standby { options: false }, State::Standby) => Verdict::NoOp,
        (
            Start { .. }
            | Stop
            | Standby { .. }
            | Restore
            | Promote
            | Demote
            | Fork { .. }
            | Exec
            | Copy
            | Stat,
            _,
        ) => return Err(wrong_state(operation, state)),
    };
    Ok(verdict)
}

/// The operations that would disturb or remove the memory that live forks share.
/// Stop is not among them: it is refused for a template in any case.
fn guarded_by_lock(operation: Operation) -> bool {
    match operation {
        Operation::Start { .. }
        | Operation::Standby { .. }
        | Operation::Restore
        | Operation::Demote
        | Operation::Delete => true,
        Operation::Stop
        | Operation::Promote
        | Operation::Fork { .. }
        | Operation::Exec
        | Operation::Copy
        | Operation::Stat => false,
    }
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Start { .. } => "start",
        Operation::Stop => "stop",
        Operation::Standby { .. } => "standby",
        Operation::Restore => "restore",
        Operation::Promote => "promote",
        Operation::Demote => "demote",
        Operation::Fork { .. } => "fork",
        Operation::Exec => "exec",
        Operation::Copy => "cp",
        Operation::Stat => "stat",
        Operation::Delete => "delete",
    }
}

fn locked(operation: Operation, live_forks: u64) -> Refusal {
    let (noun, verb) = if live_forks == 1 {
        ("fork", "shares")
    } else {
        ("forks", "share")
    };
    Refusal::state(format!(
        "cannot {} a template while {live_forks} live {noun} {verb} its memory; \
         list them with GET /instances?fork_of=<id> (coppice tree) and delete them first",
        word(operation)
    ))
}

fn wrong_state(operation: Operation, state: State) -> Refusal {
    let hint = match (operation, state) {
        (Operation::Fork { .. }, State::Running) => {
            "; pass from_running: true to fork it as it runs"
        }
        (Operation::Restore | Operation::Start { .. } | Operation::Stop, State::Template) => {
            "; a template cannot wake: demote it first, or fork it"
        }
        (Operation::Start { .. } | Operation::Stop, State::Standby) => {
            "; restore it first, or delete it"
        }
        (Operation::Standby { options: true }, State::Standby) => {
            " with options: its memory image is written and never changed; restore it first"
        }
        (Operation::Promote, State::Running) => "; put it in standby first",
        (Operation::Exec | Operation::Copy | Operation::Stat, State::Standby) => {
            "; restore it first"
        }
        (Operation::Exec | Operation::Copy | Operation::Stat, State::Stopped) => "; start it first",
        (Operation::Exec | Operation::Copy | Operation::Stat, State::Template) => {
            "; run it in a fork"
        }
        _ => "",
    };
    Refusal::state(format!(
        "cannot {} an instance in state {state}{hint}",
        word(operation)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATIONS: [Operation; 12] = [
        Operation::Start { overrides: false },
        Operation::Start { overrides: true },
        Operation::Stop,
        Operation::Standby { options: false },
        Operation::Restore,
        Operation::Promote,
        Operation::Demote,
        Operation::Fork {
            from_running: false,
        },
        Operation::Fork { from_running: true },
        Operation::Exec,
        Operation::Stat,
        Operation::Delete,
    ];

    /// One row per operation; one letter per state in the order of [`State::ALL`]:
    /// Y accepted, n no-op, `.` refused. Read it beside the specification's table.
    #[test]
    fn the_table_is_that_of_the_specification() {
        let rows: Vec<String> = OPERATIONS
            .iter()
            .map(|op| {
                State::ALL
                    .iter()
                    .map(|state| match admit(*op, *state, 0) {
                        Ok(Verdict::Proceed) => 'Y',
                        Ok(Verdict::NoOp) => 'n',
                        Err(refusal) => {
                            assert_eq!(refusal.kind, crate::RefusalKind::InvalidState);
                            '.'
                        }
                    })
                    .collect()
            })
            .collect();
        assert_eq!(
            rows,
            [
                "Y.nn.....", // start
                "Y........", // start with overrides
                "n.YYYY...", // stop
                "...Y..n..", // standby
                "..nn..Y..", // restore
                "......Y..", // promote
                ".......Y.", // demote
                "Y.....YY.", // fork
                "Y..Y..YY.", // fork from_running
                "...Y.....", // exec
                "...Y.....", // stat
                "YYYYYYYYY", // delete
            ]
        );
    }

    #[test]
    fn a_lock_refuses_with_the_count_and_how_to_list() {
        for op in [
            Operation::Start { overrides: false },
            Operation::Restore,
            Operation::Standby { options: false },
            Operation::Demote,
            Operation::Delete,
        ] {
            let refusal = admit(op, State::Template, 3).unwrap_err();
            assert!(refusal.message.contains("3 live forks"), "{refusal}");
            assert!(refusal.message.contains("fork_of="), "{refusal}");
        }
        assert_eq!(
            admit(
                Operation::Fork {
                    from_running: false
                },
                State::Template,
                3
            ),
            Ok(Verdict::Proceed)
        );
    }
}
