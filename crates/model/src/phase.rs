//! How long an instance has been in each state, for the API's phase fields.

use std::collections::BTreeMap;

use crate::{State, UnixMillis};

/// Time spent in each state so far.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PhaseClock {
    /// The state it is in.
    pub current: State,
    /// Since when.
    pub since: UnixMillis,
    /// Milliseconds in the states before, the current stay not included.
    pub totals_ms: BTreeMap<State, u64>,
}

impl PhaseClock {
    /// Starts counting in `state`.
    #[must_use]
    pub fn new(state: State, now: UnixMillis) -> Self {
        Self {
            current: state,
            since: now,
            totals_ms: BTreeMap::new(),
        }
    }

    /// Notes that the instance is in `state` at `now`; true if that is a change.
    /// A clock that went backwards counts as no time.
    pub fn enter(&mut self, state: State, now: UnixMillis) -> bool {
        if state == self.current {
            return false;
        }
        *self.totals_ms.entry(self.current).or_default() += now.since(self.since);
        self.current = state;
        self.since = now;
        true
    }

    /// Milliseconds in each state, the current stay up to `now` included.
    #[must_use]
    pub fn durations_ms(&self, now: UnixMillis) -> BTreeMap<State, u64> {
        let mut totals = self.totals_ms.clone();
        *totals.entry(self.current).or_default() += now.since(self.since);
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_adds_up_over_visits_and_never_runs_backwards() {
        let mut clock = PhaseClock::new(State::Stopped, UnixMillis(0));
        assert!(clock.enter(State::Running, UnixMillis(10)));
        assert!(!clock.enter(State::Running, UnixMillis(15)));
        assert!(clock.enter(State::Stopped, UnixMillis(30)));
        assert!(clock.enter(State::Running, UnixMillis(25)));
        let totals = clock.durations_ms(UnixMillis(125));
        assert_eq!(totals[&State::Stopped], 10);
        assert_eq!(totals[&State::Running], 120);
    }
}
