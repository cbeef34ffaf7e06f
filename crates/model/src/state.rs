//! States, the facts they are derived from, and the moves between them.
//!
//! A state is never stored as truth: [`derive`] computes it from what the
//! records say, what the VMM answers and whether a memory image is complete.

use std::fmt;

/// What an instance is doing, as the API shows it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum State {
    /// No VMM, no memory image.
    Stopped,
    /// The VMM process is up, the guest is not started.
    Created,
    /// The guest is booting: its program or its agent has not answered yet.
    Initializing,
    /// The program has started and the agent has answered.
    Running,
    /// The VMM is up, its vCPUs are halted.
    Paused,
    /// The guest has powered off, the VMM process is still there.
    Shutdown,
    /// No VMM, a complete memory image exists.
    Standby,
    /// As standby, and forks may share the memory; it cannot wake.
    Template,
    /// The facts contradict each other or cannot be read.
    Unknown,
}

impl State {
    /// Every state, in the order of the specification.
    pub const ALL: [Self; 9] = [
        Self::Stopped,
        Self::Created,
        Self::Initializing,
        Self::Running,
        Self::Paused,
        Self::Shutdown,
        Self::Standby,
        Self::Template,
        Self::Unknown,
    ];

    /// The state's name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "Stopped",
            Self::Created => "Created",
            Self::Initializing => "Initializing",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Shutdown => "Shutdown",
            Self::Standby => "Standby",
            Self::Template => "Template",
            Self::Unknown => "Unknown",
        }
    }

    /// Reads a state from its name on the wire.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of the VMM process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmmFact {
    /// No such process (or one with the same pid but another start time).
    Absent,
    /// Up, guest not started.
    Created,
    /// vCPUs run.
    Running,
    /// vCPUs are halted.
    Paused,
    /// The guest has powered off.
    Shutdown,
    /// The process is there but its control socket does not answer.
    Unreadable(String),
}

/// What is known of the guest inside a running VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestFact {
    /// The agent has not answered, or the program has not started.
    NotReady,
    /// The agent has answered and the program has started.
    Ready,
}

/// What is known of the memory image that the record names as the standby image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFact {
    /// The record names none.
    None,
    /// Its manifest is there, so it is complete.
    Complete,
    /// The record names one, and it is not there or not complete.
    Missing(String),
}

/// Everything a state is derived from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The VMM process.
    pub vmm: VmmFact,
    /// The guest in it.
    pub guest: GuestFact,
    /// The memory image that the record names.
    pub image: ImageFact,
    /// The record's template mark.
    pub template: bool,
}

/// Derives the state; for [`State::Unknown`] the second value says what is wrong.
#[must_use]
pub fn derive(facts: &Facts) -> (State, Option<String>) {
    let unknown = |why: String| (State::Unknown, Some(why));
    match (&facts.vmm, &facts.image) {
        (VmmFact::Unreadable(why), _) => unknown(format!("the VMM does not answer: {why}")),
        (VmmFact::Absent, ImageFact::Missing(what)) => {
            let role = if facts.template {
                "template's"
            } else {
                "standby"
            };
            unknown(format!("the {role} memory image is gone: {what}"))
        }
        (VmmFact::Absent, ImageFact::None) if facts.template => {
            unknown("marked a template, but no memory image is recorded".to_owned())
        }
        (VmmFact::Absent, ImageFact::None) => (State::Stopped, None),
        (VmmFact::Absent, ImageFact::Complete) if facts.template => (State::Template, None),
        (VmmFact::Absent, ImageFact::Complete) => (State::Standby, None),
        (_, ImageFact::Complete | ImageFact::Missing(_)) if facts.template => {
            unknown("marked a template, but a VMM runs it".to_owned())
        }
        (VmmFact::Created, _) => (State::Created, None),
        (VmmFact::Paused, _) => (State::Paused, None),
        (VmmFact::Shutdown, _) => (State::Shutdown, None),
        (VmmFact::Running, _) => match facts.guest {
            GuestFact::NotReady => (State::Initializing, None),
            GuestFact::Ready => (State::Running, None),
        },
    }
}

/// Whether the specification has the single move `from` → `to`.
#[must_use]
pub fn move_allowed(from: State, to: State) -> bool {
    use State::{
        Created, Initializing, Paused, Running, Shutdown, Standby, Stopped, Template, Unknown,
    };
    let targets: &[State] = match from {
        Stopped => &[Created],
        Created => &[Initializing, Running, Shutdown],
        Initializing => &[Running, Shutdown],
        Running => &[Paused, Shutdown],
        Paused => &[Running, Shutdown, Standby],
        Shutdown => &[Running, Stopped],
        Standby => &[Paused, Stopped, Template],
        Template => &[Standby, Stopped],
        Unknown => &[Stopped],
    };
    targets.contains(&to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> ImageFact {
        ImageFact::Missing("manifest.json".to_owned())
    }

    fn check(vmm: VmmFact, guest: GuestFact, image: ImageFact, template: bool, expected: State) {
        let facts = Facts {
            vmm,
            guest,
            image,
            template,
        };
        assert_eq!(derive(&facts).0, expected, "{facts:?}");
    }

    #[test]
    fn with_a_vmm_the_vmm_and_its_guest_decide() {
        use GuestFact::{NotReady, Ready};
        use ImageFact::{Complete, None};
        use VmmFact::{Created, Paused, Running, Shutdown, Unreadable};
        check(Created, NotReady, None, false, State::Created);
        check(Running, NotReady, None, false, State::Initializing);
        check(Running, Ready, None, false, State::Running);
        check(Paused, Ready, None, false, State::Paused);
        check(Shutdown, Ready, None, false, State::Shutdown);
        check(Running, Ready, Complete, true, State::Unknown);
        check(Unreadable("x".into()), Ready, None, false, State::Unknown);
    }

    #[test]
    fn without_a_vmm_the_image_and_the_mark_decide() {
        use GuestFact::NotReady;
        use ImageFact::{Complete, None};
        use VmmFact::Absent;
        check(Absent, NotReady, None, false, State::Stopped);
        check(Absent, NotReady, Complete, false, State::Standby);
        check(Absent, NotReady, Complete, true, State::Template);
        check(Absent, NotReady, missing(), true, State::Unknown);
        check(Absent, NotReady, missing(), false, State::Unknown);
        check(Absent, NotReady, None, true, State::Unknown);
    }

    #[test]
    fn unknown_always_says_why() {
        let (state, why) = derive(&Facts {
            vmm: VmmFact::Absent,
            guest: GuestFact::NotReady,
            image: ImageFact::Missing("manifest.json".to_owned()),
            template: true,
        });
        assert_eq!(state, State::Unknown);
        assert!(why.is_some_and(|why| why.contains("manifest.json")));
    }

    #[test]
    fn moves_are_those_of_the_specification() {
        let allowed: Vec<String> = State::ALL
            .iter()
            .flat_map(|from| State::ALL.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| move_allowed(*from, *to))
            .map(|(from, to)| format!("{from}→{to}"))
            .collect();
        assert_eq!(
            allowed.join(" "),
            "Stopped→Created Created→Initializing Created→Running Created→Shutdown \
             Initializing→Running Initializing→Shutdown Running→Paused Running→Shutdown \
             Paused→Running Paused→Shutdown Paused→Standby Shutdown→Stopped Shutdown→Running \
             Standby→Stopped Standby→Paused Standby→Template Template→Stopped Template→Standby \
             Unknown→Stopped"
        );
    }

    #[test]
    fn names_on_the_wire_are_read_back() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("running"), None);
    }
}
