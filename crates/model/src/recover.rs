//! What to do at start-up with an instance whose record carries an intent: the
//! daemon died somewhere between the first deed and the last.

use crate::Intent;

/// What was found of the instance's VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivor {
    /// No VMM process.
    None,
    /// A VMM whose vCPUs run.
    Running,
    /// A VMM whose guest is halted or was never started.
    Halted,
    /// A VMM whose guest has powered off.
    PoweredOff,
    /// A VMM that does not answer.
    Silent,
}

/// How to finish or undo the operation. Each repair may itself be cut short and
/// run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing was under way: keep what runs.
    Adopt,
    /// Keep the VMM and bring its guest up (start or resume it again: both are idempotent).
    FinishBringUp,
    /// Boot it (again), after ending what is left of a VMM.
    BootAgain,
    /// The image is complete: record it as the standby image and end the VMM.
    FinishStandby,
    /// The image is not complete: remove the draft and let the guest run on.
    ResumeGuest,
    /// End the VMM; the standby image is untouched, so it is in standby again.
    BackToStandby,
    /// End the VMM and record it as stopped.
    FinishStop,
    /// Remove VMM, files and record.
    Remove,
}

/// Decides the repair. `image_complete` is about the image that a standby was writing.
#[must_use]
pub fn repair(intent: Option<&Intent>, survivor: Survivor, image_complete: bool) -> Repair {
    use Survivor::{Halted, None as Gone, PoweredOff, Running, Silent};
    match (intent, survivor) {
        (None, PoweredOff) => Repair::FinishStop,
        (None, Gone | Running | Halted | Silent) => Repair::Adopt,
        (Some(Intent::Boot), Running) => Repair::FinishBringUp,
        (Some(Intent::Boot), Gone | Halted | PoweredOff | Silent) => Repair::BootAgain,
        (Some(Intent::Standby { .. }), _) if image_complete => Repair::FinishStandby,
        (Some(Intent::Standby { .. } | Intent::Capture), Running | Halted) => Repair::ResumeGuest,
        (Some(Intent::Standby { .. } | Intent::Capture), Gone | PoweredOff | Silent) => {
            Repair::FinishStop
        }
        (Some(Intent::Restore), Running) => Repair::FinishBringUp,
        (Some(Intent::Restore), Gone | Halted | PoweredOff | Silent) => Repair::BackToStandby,
        (Some(Intent::Stop), _) => Repair::FinishStop,
        (Some(Intent::BecomeFork | Intent::Delete), _) => Repair::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageId;

    #[test]
    fn a_complete_image_is_never_thrown_away_and_a_half_one_never_used() {
        let standby = Intent::Standby {
            image: ImageId::from_entropy([7; 16]),
        };
        for survivor in [
            Survivor::None,
            Survivor::Running,
            Survivor::Halted,
            Survivor::PoweredOff,
            Survivor::Silent,
        ] {
            assert_eq!(
                repair(Some(&standby), survivor, true),
                Repair::FinishStandby
            );
            assert_ne!(
                repair(Some(&standby), survivor, false),
                Repair::FinishStandby
            );
        }
        assert_eq!(
            repair(Some(&standby), Survivor::Halted, false),
            Repair::ResumeGuest
        );
    }

    #[test]
    fn machines_that_run_are_kept_and_unpromised_ones_removed() {
        assert_eq!(repair(None, Survivor::Running, false), Repair::Adopt);
        assert_eq!(
            repair(Some(&Intent::Boot), Survivor::Running, false),
            Repair::FinishBringUp
        );
        assert_eq!(
            repair(Some(&Intent::Boot), Survivor::None, false),
            Repair::BootAgain
        );
        assert_eq!(
            repair(Some(&Intent::Restore), Survivor::Halted, false),
            Repair::BackToStandby
        );
        assert_eq!(
            repair(Some(&Intent::BecomeFork), Survivor::Running, false),
            Repair::Remove
        );
        assert_eq!(
            repair(Some(&Intent::Capture), Survivor::Halted, false),
            Repair::ResumeGuest
        );
    }
}
