//! What every driver must do, as tests that know no driver.
//!
//! A [`Subject`] brings a driver and a guest that answers simple questions; each scenario makes its own machines in
//! a directory of its own. Scenarios panic when the driver does not conform, so they are run by tests only.
#![expect(
    clippy::unwrap_used,
    reason = "scenarios are tests: they fail by panicking"
)]

mod basics;
mod compressed;
mod damage;
mod forks;
mod hot;
mod images;
mod nics;
mod rig;
mod subject;

pub use rig::{DEADLINE, Machine, Rig, Saved, finish};
pub use subject::{Ask, Guest, Place, Subject};

/// A scenario of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A booted machine answers and tells its status.
    LaunchAnswers,
    /// A paused machine stands still and goes on.
    PauseResume,
    /// A machine that powers off stays as a VMM that has shut down.
    PowerOff,
    /// A killed machine has exited, and adoption finds nothing.
    KillExits,
    /// A machine is adopted by a new driver and is the same.
    Adopt,
    /// Capture, quit, restore: memory and disk continue.
    StandbyRestore,
    /// Capture, resume: the source goes on, and the image restores.
    CaptureAndGoOn,
    /// A second capture without a run in between is refused.
    CaptureTwice,
    /// Four forks run at once without seeing each other; the image stays the same.
    ForksAreIsolated,
    /// What one fork touches is told, and entered ahead in another one without becoming its own.
    HotPages,
    /// Standby of a fork holds little and restores what the fork had.
    DiffStandby,
    /// Three standbys one after the other lose nothing.
    Chain,
    /// A fork with copied memory is independent of the image's RAM.
    CopiedFork,
    /// Compressed and plain standbys on top of each other lose nothing, and a damaged one is refused.
    Compressed,
    /// An image of another machine is refused by the field.
    MismatchRefused,
    /// An image of a machine with a network card restores with that card only, and one without only without.
    NicMustFit,
    /// Damaged files are refused by name.
    DamageRefused,
    /// A plan that cannot work leaves no process.
    FailureLeavesNothing,
}

impl Scenario {
    /// All of them, simple ones first.
    pub const ALL: [Self; 18] = [
        Self::LaunchAnswers,
        Self::PauseResume,
        Self::PowerOff,
        Self::KillExits,
        Self::Adopt,
        Self::StandbyRestore,
        Self::CaptureAndGoOn,
        Self::CaptureTwice,
        Self::ForksAreIsolated,
        Self::HotPages,
        Self::DiffStandby,
        Self::Chain,
        Self::CopiedFork,
        Self::Compressed,
        Self::MismatchRefused,
        Self::NicMustFit,
        Self::DamageRefused,
        Self::FailureLeavesNothing,
    ];

    /// Runs it on `subject`; panics if the driver does not conform.
    pub async fn run(self, subject: &dyn Subject) {
        let rig = Rig::new(subject).await;
        match self {
            Self::LaunchAnswers => basics::launch_answers(&rig).await,
            Self::PauseResume => basics::pause_resume(&rig).await,
            Self::PowerOff => basics::power_off(&rig).await,
            Self::KillExits => basics::kill_exits(&rig).await,
            Self::Adopt => basics::adopt(&rig).await,
            Self::StandbyRestore => images::standby_restore(&rig).await,
            Self::CaptureAndGoOn => images::capture_and_go_on(&rig).await,
            Self::CaptureTwice => images::capture_twice(&rig).await,
            Self::Chain => images::chain(&rig).await,
            Self::ForksAreIsolated => forks::isolated(&rig).await,
            Self::HotPages => hot::pages(&rig).await,
            Self::DiffStandby => forks::diff_standby(&rig).await,
            Self::CopiedFork => forks::copied(&rig).await,
            Self::Compressed => compressed::compressed(&rig).await,
            Self::MismatchRefused => damage::mismatch_refused(&rig).await,
            Self::NicMustFit => nics::must_fit(&rig).await,
            Self::DamageRefused => damage::damage_refused(&rig).await,
            Self::FailureLeavesNothing => damage::failure_leaves_nothing(&rig).await,
        }
    }
}
