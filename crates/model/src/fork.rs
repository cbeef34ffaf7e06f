//! The rules of forking (specification §3 and §6): what a request means for a
//! source in a given state.

use crate::{Name, Operation, Refusal, State, admit};

/// Most forks in one call.
pub const MAX_FORKS: u32 = 1000;

/// The state a fork is brought to before the call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Its disk only.
    Stopped,
    /// With the source's memory, asleep.
    Standby,
    /// Awake, with an identity of its own.
    Running,
}

/// The parts of a fork request that the rules look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkAsk {
    /// Share the template's memory; none = true for a template, false otherwise.
    pub share_memory: Option<bool>,
    /// Capture a running source.
    pub from_running: bool,
    /// A template to take the memory from is named.
    pub names_template: bool,
    /// The wanted state.
    pub target: Option<Target>,
    /// How many; none = one, answered as a single instance.
    pub count: Option<u32>,
}

/// Where a fork's memory and disk come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForkMode {
    /// Attach to the template's image and record it as parent.
    /// `promote` a standby source first, in the same locked step.
    Share {
        /// The source is in standby and becomes a template by this.
        promote: bool,
    },
    /// A full, independent copy of the image; no parent.
    Copy,
    /// Pause, capture an image, resume the source; no parent.
    Capture,
    /// The disk of a stopped source; no memory, no parent.
    Disk,
}

/// What a fork request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkPlan {
    /// Where memory and disk come from.
    pub mode: ForkMode,
    /// Where the forks are brought.
    pub target: Target,
    /// How many, 1 to [`MAX_FORKS`].
    pub count: u32,
}

/// Decides what `ask` means for a source in `state`. With `names_template` the state
/// is that of the template, which must be `Template`.
pub fn plan_fork(ask: ForkAsk, state: State) -> Result<ForkPlan, Refusal> {
    let count = check_fork(ask)?;
    if ask.names_template && state != State::Template {
        return Err(Refusal::state(format!(
            "template_id names an instance in state {state}; it must be a Template"
        )));
    }
    let share = ask.share_memory.unwrap_or(state == State::Template);
    if share && !matches!(state, State::Standby | State::Template) {
        return Err(Refusal::state(format!(
            "share_memory needs a source in Standby or Template, this one is {state}"
        )));
    }
    admit(
        Operation::Fork {
            from_running: ask.from_running,
        },
        state,
        0,
    )?;
    let mode = match (state, share) {
        (State::Template, true) => ForkMode::Share { promote: false },
        (State::Standby, true) => ForkMode::Share { promote: true },
        (State::Running, _) => ForkMode::Capture,
        (State::Stopped, _) => ForkMode::Disk,
        _ => ForkMode::Copy,
    };
    // A fork takes the state of its source, as the public SDKs expect, but the
    // shoots of a template are wanted alive: a template itself can never run.
    let target = ask.target.unwrap_or(match mode {
        ForkMode::Share { .. } | ForkMode::Capture => Target::Running,
        ForkMode::Copy if state == State::Template => Target::Running,
        ForkMode::Copy => Target::Standby,
        ForkMode::Disk => Target::Stopped,
    });
    if mode == ForkMode::Disk && target == Target::Standby {
        return Err(Refusal::request(
            "a stopped source has no memory to put in standby; fork it to Stopped or Running",
        ));
    }
    Ok(ForkPlan {
        mode,
        target,
        count,
    })
}

/// What is wrong with a request whatever the source is; else how many forks it asks for.
pub fn check_fork(ask: ForkAsk) -> Result<u32, Refusal> {
    if ask.share_memory == Some(true) && ask.from_running {
        return Err(Refusal::request(
            "share_memory and from_running exclude each other: a running source wakes again after the fork, a template cannot",
        ));
    }
    if ask.share_memory.is_some() && ask.names_template {
        return Err(Refusal::request(
            "share_memory and template_id exclude each other: template_id already says whose memory is shared",
        ));
    }
    if ask.from_running && ask.names_template {
        return Err(Refusal::request(
            "from_running and template_id exclude each other: the memory comes from the template",
        ));
    }
    let count = ask.count.unwrap_or(1);
    if !(1..=MAX_FORKS).contains(&count) {
        return Err(Refusal::request(format!(
            "count must be 1 to {MAX_FORKS}, not {count}"
        )));
    }
    Ok(count)
}

/// The names of `count` forks: the name itself for one, `name-1 …` for several.
/// A name that would be too long with its number is refused before anything is made.
pub fn fork_names(name: &str, count: u32) -> Result<Vec<Name>, Refusal> {
    let parse = |text: String| {
        text.parse()
            .map_err(|e| Refusal::request(format!("invalid name {text:?}: {e}")))
    };
    if count == 1 {
        return Ok(vec![parse(name.to_owned())?]);
    }
    (1..=count).map(|n| parse(format!("{name}-{n}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RefusalKind::{InvalidRequest, InvalidState};

    fn ask() -> ForkAsk {
        ForkAsk::default()
    }

    fn kind(ask: ForkAsk, state: State) -> crate::RefusalKind {
        plan_fork(ask, state).unwrap_err().kind
    }

    #[test]
    fn the_source_state_decides_where_memory_comes_from() {
        let mode = |ask, state| plan_fork(ask, state).unwrap().mode;
        let share = |share| ForkAsk {
            share_memory: Some(share),
            ..ask()
        };
        let running = ForkAsk {
            from_running: true,
            ..ask()
        };
        assert_eq!(
            mode(ask(), State::Template),
            ForkMode::Share { promote: false }
        );
        assert_eq!(mode(ask(), State::Standby), ForkMode::Copy);
        assert_eq!(mode(ask(), State::Stopped), ForkMode::Disk);
        assert_eq!(
            mode(share(true), State::Standby),
            ForkMode::Share { promote: true }
        );
        assert_eq!(
            mode(share(true), State::Template),
            ForkMode::Share { promote: false }
        );
        assert_eq!(mode(share(false), State::Template), ForkMode::Copy);
        assert_eq!(mode(share(false), State::Standby), ForkMode::Copy);
        assert_eq!(mode(running, State::Running), ForkMode::Capture);
        assert_eq!(mode(running, State::Stopped), ForkMode::Disk);
        assert_eq!(
            mode(running, State::Template),
            ForkMode::Share { promote: false }
        );
    }

    #[test]
    fn contradictions_are_bad_requests() {
        let both = ForkAsk {
            share_memory: Some(true),
            from_running: true,
            ..ask()
        };
        let named = ForkAsk {
            share_memory: Some(true),
            names_template: true,
            ..ask()
        };
        for state in State::ALL {
            assert_eq!(kind(both, state), InvalidRequest);
            assert_eq!(kind(named, state), InvalidRequest);
        }
        for count in [0, MAX_FORKS + 1] {
            let ask = ForkAsk {
                count: Some(count),
                ..ask()
            };
            assert_eq!(kind(ask, State::Template), InvalidRequest);
        }
    }

    #[test]
    fn wrong_states_are_conflicts() {
        let share = ForkAsk {
            share_memory: Some(true),
            ..ask()
        };
        for state in State::ALL {
            if !matches!(state, State::Standby | State::Template) {
                assert_eq!(kind(share, state), InvalidState, "{state}");
            }
        }
        assert_eq!(kind(ask(), State::Running), InvalidState);
        assert_eq!(kind(ask(), State::Initializing), InvalidState);
        let named = ForkAsk {
            names_template: true,
            ..ask()
        };
        assert_eq!(kind(named, State::Standby), InvalidState);
        assert!(plan_fork(named, State::Template).is_ok());
    }

    #[test]
    fn names_of_many_are_numbered_and_checked() {
        let names = fork_names("web", 3).unwrap();
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        assert_eq!(names, ["web-1", "web-2", "web-3"]);
        assert_eq!(fork_names("web", 1).unwrap()[0].as_str(), "web");
        assert!(fork_names(&"x".repeat(62), 10).is_err());
        assert!(fork_names("Web", 1).is_err());
    }
}
