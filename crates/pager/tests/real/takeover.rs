//! The loss of a pager is a pause, and never a wrong byte.

use std::collections::BTreeMap;
use std::time::Duration;

use memory::Encoding;
use pager::{Event, Limits};
use rustix::process::Signal;

use super::reference::{Layer, Reference};
use super::rig::{Rig, config};

pub(crate) const ALL: &[super::Test] = &[
    (
        "killed_at_any_moment_no_byte_is_wrong",
        killed_at_any_moment_no_byte_is_wrong,
    ),
    ("removals_outlive_their_pager", removals_outlive_their_pager),
    (
        "a_pager_that_is_silent_is_replaced",
        a_pager_that_is_silent_is_replaced,
    ),
    (
        "without_a_pager_the_machine_is_killed",
        without_a_pager_the_machine_is_killed,
    ),
    (
        "a_machine_that_waits_too_long_for_another_pager_is_killed",
        a_machine_that_waits_too_long_for_another_pager_is_killed,
    ),
    (
        "a_takeover_without_enough_time_costs_nobody_who_was_placed",
        a_takeover_without_enough_time,
    ),
    (
        "a_pager_that_dies_again_and_again_is_given_up",
        a_pager_that_dies_again_and_again_is_given_up,
    ),
];

const ROUNDS: u64 = 50;
const PAGES: u64 = 16 << 10;

/// 64 MiB, 50 times. The moment is drawn by how far the guest has read.
fn killed_at_any_moment_no_byte_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::striped(Encoding::Packed, PAGES, 500, 20, 0),
        Layer::striped(Encoding::Zstd, PAGES, 200, 0, 1),
    ];
    let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.limits.restarts = u32::MAX;
    let rig = Rig::start(config);
    let wanted = reference.sum(0, PAGES);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..ROUNDS {
        let vm = format!("vm-{round}");
        let mut guest = rig.guest(&vm, &reference);
        guest.tell(&format!("sum 0 {PAGES} 2"));
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The guest tells of each 64th page it has read.
        let moment = state % (PAGES / 64);
        for _ in 0..moment {
            guest.next().unwrap();
        }
        rig.signal_pager(Signal::KILL);
        assert_eq!(
            guest.result(),
            Some(wanted.clone()),
            "round {round}, at {moment}"
        );
        drop(guest);
        rig.event(|event| matches!(event, Event::Gone(stats) if stats.vm == vm).then_some(()));
    }
}

fn removals_outlive_their_pager() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 2048, 0)];
    let mut reference = Reference::new(&dir.path().join("image"), 2048, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    for round in 0..4 {
        let first = 100 + 400 * round;
        guest.ask(&format!("discard {first} 200"));
        reference.forget(first, 200);
        rig.signal_pager(Signal::KILL);
        let read = first + 100;
        assert_eq!(guest.sum(read, 150), Some(reference.sum(read, 150)));
    }
    assert_eq!(guest.sum(0, 2048), Some(reference.sum(0, 2048)));
    assert_eq!(rig.stats("vm").stats.takeovers, 4);
}

fn a_pager_that_is_silent_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 2048, 0)];
    let reference = Reference::new(&dir.path().join("image"), 2048, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.limits.silence = Duration::from_secs(1);
    let rig = Rig::start(config);
    let mut guest = rig.guest("vm", &reference);
    let pid = rig.pid();
    rig.signal_pager(Signal::STOP);
    assert_eq!(guest.sum(0, 2048), Some(reference.sum(0, 2048)));
    assert_ne!(rig.pid(), pid);
}

/// Its image is damaged while it runs, so no other pager can start.
fn without_a_pager_the_machine_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 2048, 0)];
    let reference = Reference::new(&dir.path().join("image"), 2048, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    reference.damage(0, "idx", 0.5);
    rig.signal_pager(Signal::KILL);
    guest.tell("sum 0 2048 2");
    let reason = rig.failure("vm");
    assert!(reason.contains("cannot be replaced"), "{reason}");
    assert_eq!(guest.result(), None, "it has read something");
    guest.ended();
    rig.event(|event| matches!(event, Event::Gone(_)).then_some(()));
}

/// The next pager starts, and is never heard of.
fn a_machine_that_waits_too_long_for_another_pager_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 2048, 0)];
    let reference = Reference::new(&dir.path().join("image"), 2048, &layers);
    let mut config = config(dir.path(), &reference.dir);
    let program = dir.path().join("pager");
    std::fs::copy(&config.program, &program).unwrap();
    config.program = program.clone();
    config.limits.takeover = Duration::from_secs(1);
    let rig = Rig::start(config);
    let mut guests = [rig.guest("one", &reference), rig.guest("other", &reference)];
    std::fs::remove_file(&program).unwrap();
    std::os::unix::fs::symlink("/usr/bin/yes", &program).unwrap();
    rig.signal_pager(Signal::KILL);
    for (vm, guest) in ["one", "other"].into_iter().zip(&mut guests) {
        guest.tell("sum 0 2048 2");
        let reason = rig.failure(vm);
        assert!(
            reason.contains("another pager took longer than 1000 ms"),
            "{reason}"
        );
        assert_eq!(guest.result(), None, "it has read something");
        guest.ended();
    }
}

/// Time runs out in the middle, sooner or later. Whoever has a pager by then keeps it.
fn a_takeover_without_enough_time() {
    const GUESTS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 512, 0)];
    let reference = Reference::new(&dir.path().join("image"), 512, &layers);
    for limit_ms in [2, 3, 4, 6] {
        let mut config = config(dir.path(), &reference.dir);
        config.limits.takeover = Duration::from_millis(limit_ms);
        let rig = Rig::start(config);
        let name = |nth| format!("vm-{nth}");
        let mut guests: Vec<_> = (0..GUESTS)
            .map(|nth| rig.guest(&name(nth), &reference))
            .collect();
        rig.signal_pager(Signal::KILL);
        let sums: Vec<_> = guests.iter_mut().map(|guest| guest.sum(0, 512)).collect();
        // The supervisor does one thing after the other: it has said all it has to say.
        rig.supervisor.vms().unwrap();
        let failed = |event| match event {
            Event::Failed { vm, reason } => Some((vm, reason)),
            _ => None,
        };
        let reasons: BTreeMap<String, String> = rig.events.try_iter().filter_map(failed).collect();
        for (nth, sum) in sums.into_iter().enumerate() {
            match (sum, reasons.get(&name(nth))) {
                (None, Some(reason)) => {
                    assert!(reason.contains("another pager took longer"), "{reason}");
                }
                (sum, failure) => {
                    assert_eq!((sum, failure), (Some(reference.sum(0, 512)), None));
                    assert_eq!(rig.stats(&name(nth)).stats.takeovers, 1);
                }
            }
        }
    }
}

fn a_pager_that_dies_again_and_again_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 256, 0)];
    let reference = Reference::new(&dir.path().join("image"), 256, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.limits = Limits {
        restarts: 2,
        restart_window: Duration::from_secs(600),
        ..config.limits
    };
    let rig = Rig::start(config);
    let mut guest = rig.guest("vm", &reference);
    for _ in 0..2 {
        rig.signal_pager(Signal::KILL);
        assert_eq!(rig.took_over(), ["vm"]);
    }
    assert_eq!(guest.sum(0, 16), Some(reference.sum(0, 16)));
    rig.signal_pager(Signal::KILL);
    assert!(rig.failure("vm").contains("lost 3 times"));
    guest.ended();
    // Machines to come are served again.
    let mut next = rig.guest("next", &reference);
    assert_eq!(next.sum(0, 256), Some(reference.sum(0, 256)));
}
