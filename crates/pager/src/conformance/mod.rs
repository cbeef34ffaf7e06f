//! What every service of pagers must do, as tests that know none: the real processes and the fake.
//!
//! A [`Subject`] brings the service, a place with an image, and machines that hand their memory over. Scenarios panic
//! when the service does not conform, so they are run by tests only.
#![expect(
    clippy::unwrap_used,
    reason = "scenarios are tests: they fail by panicking"
)]

mod bench;
mod losses;
mod serving;

use std::os::unix::net::UnixListener;

use crate::{PagerHost, Place};

/// A service of pagers under test. Everything that it gives is about one host and one image, of at least 1024 pages that are checked in chunks of 1 MiB or less.
pub trait Subject {
    /// The service as a daemon of this build has it.
    fn host(&self, build: &'static str) -> Box<dyn PagerHost>;

    /// Where the image is, and its pagers are to be.
    fn place(&self) -> &Place;

    /// A machine that has not handed over anything yet.
    fn machine(&self) -> Box<dyn Machine>;

    /// The pager that was started first among those that are there ends at once.
    fn lose_first_pager(&self);

    /// From now on this page cannot be had from the image. No pager has read it yet.
    fn damage(&self, page: u64);
}

/// A machine whose memory is served.
pub trait Machine {
    /// Where it connects.
    fn listener(&self) -> &UnixListener;

    /// Its process.
    fn pid(&self) -> i32;

    /// Begins to hand its memory over; does not wait for anybody.
    fn hand_over(&mut self);

    /// Reads these pages, and says whether they are as the image has them; `None` if it was ended meanwhile.
    fn is_right(&mut self, first: u64, count: u64) -> Option<bool>;

    /// Ends it.
    fn end(&mut self);

    /// Waits until it has ended.
    fn has_ended(&mut self);
}

/// A scenario of the suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// A machine is served, counted and, when it ends, gone.
    Serves,
    /// A name that is served cannot be had twice; who tries is ended.
    OneOfAName,
    /// What is touched is recorded in its phases, and filled ahead for the next.
    HotPages,
    /// A machine that was completed needs no pager.
    Completes,
    /// The loss of a pager is told, and costs nothing.
    TakesOver,
    /// Who needs what is damaged is ended, with the reason; others go on.
    Damage,
    /// Another daemon finds machines and goes on with them.
    IsFound,
    /// Another build takes machines to come; the old pager goes on, and the new one follows it when it is lost.
    Drains,
}

impl Scenario {
    /// All of them, simple ones first.
    pub const ALL: [Self; 8] = [
        Self::Serves,
        Self::OneOfAName,
        Self::HotPages,
        Self::Completes,
        Self::TakesOver,
        Self::Damage,
        Self::IsFound,
        Self::Drains,
    ];

    /// Runs it on a fresh `subject`; panics if the service does not conform.
    pub fn run(self, subject: &dyn Subject) {
        match self {
            Self::Serves => serving::serves(subject),
            Self::OneOfAName => serving::one_of_a_name(subject),
            Self::HotPages => serving::hot_pages(subject),
            Self::Completes => serving::completes(subject),
            Self::TakesOver => losses::takes_over(subject),
            Self::Damage => losses::damage(subject),
            Self::IsFound => losses::is_found(subject),
            Self::Drains => losses::drains(subject),
        }
    }
}
