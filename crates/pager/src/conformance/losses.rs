//! Pagers, images and daemons that are lost.

use super::Subject;
use super::bench::Bench;
use crate::Event;

/// In another chunk than what is read besides.
const DAMAGED: u64 = 900;

pub(super) fn takes_over(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut one = bench.served("one");
    let mut other = bench.served("other");
    assert_eq!(one.is_right(0, 100), Some(true));
    for losses in 1..3 {
        let faults = bench.stats("one").faults;
        subject.lose_first_pager();
        assert_eq!(bench.took_over(), ["one", "other"]);
        assert!(bench.stats("one").faults < faults, "it counts anew");
        for (vm, machine) in [("one", &mut one), ("other", &mut other)] {
            let first = losses * 60;
            assert_eq!(machine.is_right(first, 60), Some(true));
            assert_eq!(bench.stats(vm).takeovers, losses);
        }
    }
    bench.serves(&["one", "other"]);
}

pub(super) fn damage(subject: &dyn Subject) {
    subject.damage(DAMAGED);
    let bench = Bench::open(subject, "one");
    let mut reader = bench.served("reader");
    let mut other = bench.served("other");
    assert_eq!(reader.is_right(0, 8), Some(true));
    assert_eq!(reader.is_right(DAMAGED, 1), None, "it has read something");
    match bench.event() {
        Event::Failed { vm, reason } => {
            assert_eq!(vm, "reader");
            assert!(!reason.is_empty());
        }
        event => panic!("{event:?}"),
    }
    reader.has_ended();
    match bench.event() {
        Event::Gone(gone) => assert_eq!(gone.vm, "reader"),
        event => panic!("{event:?}"),
    }
    assert_eq!(other.is_right(0, 8), Some(true));
    bench.serves(&["other"]);
}

pub(super) fn is_found(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut machine = bench.served("vm");
    assert_eq!(machine.is_right(0, 40), Some(true));
    let faults = bench.stats("vm").faults;
    drop(bench);
    // Nobody supervises, and it is served.
    assert_eq!(machine.is_right(40, 40), Some(true));
    let bench = Bench::open(subject, "one");
    bench.serves(&["vm"]);
    assert!(bench.stats("vm").faults >= faults, "counters go on");
    assert_eq!(machine.is_right(0, 120), Some(true));
    subject.lose_first_pager();
    assert_eq!(bench.took_over(), ["vm"]);
    assert_eq!(machine.is_right(0, 1024), Some(true));
    machine.end();
    assert!(matches!(bench.event(), Event::Gone(gone) if gone.vm == "vm"));
    bench.serves(&[]);
}

pub(super) fn drains(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut old = bench.served("old");
    assert_eq!(old.is_right(0, 40), Some(true));
    drop(bench);
    let bench = Bench::open(subject, "two");
    let mut new = bench.served("new");
    bench.serves(&["new", "old"]);
    for machine in [&mut old, &mut new] {
        assert_eq!(machine.is_right(0, 120), Some(true));
    }
    subject.lose_first_pager();
    assert_eq!(bench.took_over(), ["old"], "the other has its own");
    assert_eq!(bench.stats("old").takeovers, 1);
    assert_eq!(bench.stats("new").takeovers, 0);
    subject.lose_first_pager();
    assert_eq!(bench.took_over(), ["new", "old"], "they have the same");
    for machine in [&mut old, &mut new] {
        assert_eq!(machine.is_right(0, 1024), Some(true));
    }
    drop(bench);
    // The same build is no other one.
    let bench = Bench::open(subject, "two");
    let late = bench.served("late");
    subject.lose_first_pager();
    assert_eq!(bench.took_over(), ["late", "new", "old"]);
    drop(late);
}
