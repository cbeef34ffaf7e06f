//! Machines that are served as they should be.

use super::Subject;
use super::bench::{Bench, until};
use crate::{Event, Mark};

pub(super) fn serves(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    bench.serves(&[]);
    let mut one = bench.served("one");
    let mut other = bench.served("other");
    bench.serves(&["one", "other"]);
    for machine in [&mut one, &mut other] {
        assert_eq!(machine.is_right(0, 200), Some(true));
    }
    for vm in ["one", "other"] {
        assert!(bench.stats(vm).faults > 0);
    }
    assert!(bench.pager.graduate("nobody", 1).is_err());
    assert!(bench.pager.mark("nobody", Mark::Ready).is_err());
    one.end();
    match bench.event() {
        Event::Gone(gone) => assert!(gone.vm == "one" && gone.stats.faults > 0, "{gone:?}"),
        event => panic!("{event:?}"),
    }
    bench.serves(&["other"]);
    assert_eq!(other.is_right(200, 50), Some(true));
}

pub(super) fn one_of_a_name(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut first = bench.served("vm");
    let mut second = subject.machine();
    let refused = bench.attach("vm", second.as_mut(), None).unwrap_err();
    assert!(refused.to_string().contains("served already"), "{refused}");
    second.has_ended();
    bench.serves(&["vm"]);
    assert_eq!(first.is_right(0, 100), Some(true));
}

pub(super) fn hot_pages(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut recorded = bench.served("recorded");
    assert_eq!(recorded.is_right(32, 1), Some(true));
    assert_eq!(bench.pager.mark("recorded", Mark::Ready).unwrap(), None);
    assert_eq!(recorded.is_right(128, 1), Some(true));
    let hot = bench.pager.mark("recorded", Mark::FirstExec).unwrap();
    let hot = hot.expect("it was recorded");
    let holds = |runs: &[(u64, u64)], page| {
        let mut runs = runs.iter();
        runs.any(|(first, count)| (*first..first + count).contains(&page))
    };
    assert_eq!(hot.recordings, 1);
    assert!(holds(&hot.ready, 32) && !holds(&hot.ready, 128), "{hot:?}");
    assert!(holds(&hot.exec, 128) && !holds(&hot.exec, 32), "{hot:?}");
    let again = bench.pager.mark("recorded", Mark::FirstExec).unwrap();
    assert_eq!(again, None, "one recording for each machine");
    let wanted = hot.page_count() * memory::PAGE_BYTES as u64;
    let mut warm = bench.served_with("warm", Some(hot));
    until("filling ahead", || {
        bench.stats("warm").ahead_bytes >= wanted
    });
    assert_eq!(bench.pager.mark("warm", Mark::Ready).unwrap(), None);
    let unrecorded = bench.pager.mark("warm", Mark::FirstExec).unwrap();
    assert_eq!(unrecorded, None);
    assert_eq!(warm.is_right(0, 200), Some(true));
}

pub(super) fn completes(subject: &dyn Subject) {
    let bench = Bench::open(subject, "one");
    let mut machine = bench.served("vm");
    assert_eq!(machine.is_right(0, 20), Some(true));
    assert!(!bench.host.is_complete(machine.pid()).unwrap());
    bench.pager.graduate("vm", 1 << 30).unwrap();
    match bench.event() {
        Event::Graduated(done) => assert!(done.vm == "vm" && done.stats.faults > 0, "{done:?}"),
        event => panic!("{event:?}"),
    }
    bench.serves(&[]);
    assert!(bench.host.is_complete(machine.pid()).unwrap());
    drop(bench);
    assert_eq!(machine.is_right(0, 1024), Some(true));
    let next = Bench::open(subject, "one");
    next.serves(&[]);
    assert!(next.host.is_complete(machine.pid()).unwrap());
}
