//! The second processor: it does its share of work on pages, and has no power over anything else.
//!
//! It sleeps, without a turn of the host's processors, until it is started for some work, and is put to sleep again
//! when that is done: a processor that was reset waits for its start. Both are messages of the local APIC.

use crate::map::{LOCAL_APIC, SECOND, SECOND_START};
use crate::pages::{self, Verb, Work};
use crate::random::Random;
use crate::sys;

/// Message to all other processors: reset, and wait.
const RESET: u32 = 0x000c_4500;

/// Message to all other processors: start in real mode at the page of this number.
const START: u32 = 0x000c_4600;

/// Low half of the register that sends messages.
const SEND: u64 = LOCAL_APIC + 0x300;

/// Looks at whether it is done before it is taken for missing: tens of seconds.
const PATIENCE: u64 = 1 << 30;

/// Looks at whether it is there before it is started again: some tenths of a second.
const START_PATIENCE: u64 = 1 << 23;

/// Starts of it before it is taken for missing.
const STARTS: u32 = 64;

/// Turns of nothing in which a reset has come to it.
const RESET_TURNS: u64 = 1 << 20;

/// Whether it is to roam, and not to work.
const ROAMS: u64 = SECOND;
const VERB: u64 = SECOND + 8;
const FIRST: u64 = SECOND + 16;
const COUNT: u64 = SECOND + 24;
const SEED: u64 = SECOND + 32;
const RUN: u64 = SECOND + 40;
const COUNTED: u64 = SECOND + 48;
const IS_DONE: u64 = SECOND + 56;
const ROAMED: u64 = SECOND + 64;
/// Whether it was reset since it was last started.
const WAITS: u64 = SECOND + 72;
/// Whether it runs.
const IS_UP: u64 = SECOND + 80;

/// Both processors work, each on every second run of `run` pages. What they counted together, or `None` if there is no
/// second one.
pub fn share(work: &Work, run: u64) -> Option<u64> {
    start(&[
        (ROAMS, 0),
        (VERB, work.verb as u64),
        (FIRST, work.first),
        (COUNT, work.count),
        (SEED, work.seed),
        (RUN, run),
        (IS_DONE, 0),
    ])?;
    let own = work.turns(run, 0);
    wait_for(IS_DONE, PATIENCE)?;
    stop();
    Some(own + sys::read64(COUNTED))
}

/// The second processor reads pages of `first..first + count` at random from now on. `None` if there is none.
pub fn roam(first: u64, count: u64) -> Option<()> {
    start(&[(ROAMS, 1), (FIRST, first), (COUNT, count)])
}

/// How many it has read.
pub fn roamed() -> u64 {
    sys::read64(ROAMED)
}

/// Starts it anew with what it is told, and sees it run. A reset that overtakes a start loses that (KVM takes them up
/// later, and a start on its way is spent on the reset before), so none is sent to who is on the way. One that was under
/// way when the machine was saved may be lost, and a start means nothing to who runs: both are sent again then.
fn start(told: &[(u64, u64)]) -> Option<()> {
    if sys::read64(WAITS) == 0 {
        stop();
    }
    for (address, value) in told {
        sys::write64(*address, *value);
    }
    sys::place_second(SECOND_START);
    for _ in 0..STARTS {
        sys::write64(IS_UP, 0);
        sys::write64(WAITS, 0);
        sys::fence();
        sys::write32(SEND, START | (SECOND_START >> 12) as u32);
        if wait_for(IS_UP, START_PATIENCE).is_some() {
            return Some(());
        }
        stop();
        // If it was started late, it must not say so after this.
        (0..RESET_TURNS).for_each(|_| sys::relax());
    }
    None
}

fn stop() {
    sys::write32(SEND, RESET);
    sys::write64(WAITS, 1);
}

fn wait_for(sign: u64, looks: u64) -> Option<()> {
    for _ in 0..looks {
        if sys::read64(sign) == 1 {
            return Some(());
        }
        sys::relax();
    }
    None
}

/// What the second processor does when it is started.
pub fn run() -> ! {
    sys::write64(IS_UP, 1);
    let (first, count) = (sys::read64(FIRST), sys::read64(COUNT));
    if sys::read64(ROAMS) == 0 {
        let work = Work {
            verb: Verb::of(sys::read64(VERB)),
            first,
            count,
            seed: sys::read64(SEED),
        };
        sys::write64(COUNTED, work.turns(sys::read64(RUN), 1));
        sys::fence();
        sys::write64(IS_DONE, 1);
        loop {
            sys::relax();
        }
    }
    let mut random = Random::new(first);
    loop {
        pages::touch(first + random.below(count));
        sys::write64(ROAMED, roamed() + 1);
    }
}
