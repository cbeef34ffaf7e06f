//! When waiting for a state is over.

use crate::State;

/// Whether to go on waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitVerdict {
    /// Answer now.
    Done,
    /// Keep waiting.
    Wait,
}

/// Decides for an instance in `current` whose watcher wants `target`. States that an
/// instance does not leave by itself end the wait even when they are not the target,
/// unless an operation is under way that may still lead there.
#[must_use]
pub fn wait_verdict(current: State, target: State, busy: bool) -> WaitVerdict {
    if current == target {
        return WaitVerdict::Done;
    }
    match current {
        State::Unknown => WaitVerdict::Done,
        State::Stopped | State::Standby | State::Template if !busy => WaitVerdict::Done,
        State::Stopped
        | State::Standby
        | State::Template
        | State::Created
        | State::Initializing
        | State::Running
        | State::Paused
        | State::Shutdown => WaitVerdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resting_states_end_a_wait_and_moving_ones_do_not() {
        use WaitVerdict::{Done, Wait};
        assert_eq!(wait_verdict(State::Running, State::Running, false), Done);
        assert_eq!(wait_verdict(State::Stopped, State::Running, false), Done);
        assert_eq!(wait_verdict(State::Stopped, State::Running, true), Wait);
        assert_eq!(wait_verdict(State::Unknown, State::Running, true), Done);
        assert_eq!(
            wait_verdict(State::Initializing, State::Running, false),
            Wait
        );
        assert_eq!(wait_verdict(State::Running, State::Stopped, false), Wait);
    }
}
