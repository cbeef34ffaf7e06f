//! What machines of one pager take from each other: turns and memory.

use memory::Encoding;
use pager::HotPages;
use rustix::process::Signal;

use super::reference::{Layer, Reference};
use super::rig::{Rig, config, send};

pub(crate) const ALL: &[super::Test] = &[
    ("a_fault_is_not_behind_all_others", a_fault),
    ("a_fault_is_not_behind_work_ahead", work_ahead),
    ("a_removal_behind_many_faults_is_heard", a_removal),
    ("a_pager_holds_no_more_than_its_cache", a_cache),
];

/// One machine has many threads waiting, another one has one; the pager hears of all of them at once.
fn a_fault() {
    // Fewer than one read of messages gives, so that the pager knows of all of them before it answers any.
    const CROWD: usize = 30;
    // 2 MiB, which takes much longer to fill than a thread to run that was woken.
    const APART: u64 = 512;
    let dir = tempfile::tempdir().unwrap();
    let pages = APART * CROWD as u64;
    let layers = [Layer::whole(Encoding::Packed, pages, 0)];
    let reference = Reference::new(&dir.path().join("image"), pages, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.settings.batch_bytes = 2 << 20;
    let rig = Rig::start(config);
    let mut greedy = rig.guest("greedy", &reference);
    let mut modest = rig.guest("modest", &reference);
    // The supervisor, asked later, may be waiting for an answer of the one that stands still.
    let pid = rig.pid();
    send(pid, Signal::STOP);
    greedy.tell(&format!("read-apart {CROWD} {APART}"));
    modest.tell("read-apart 1 1");
    greedy.waits_with(CROWD);
    modest.waits_with(1);
    send(pid, Signal::CONT);
    for guest in [&greedy, &modest] {
        assert_eq!(guest.result().as_deref(), Some("done"));
    }
    let [greedy, modest] = ["greedy", "modest"].map(|vm| rig.stats(vm).stats.latency);
    assert_eq!((greedy.count(), modest.count()), (CROWD as u64, 1));
    // All were heard of at one time. Four of the greedy one come first, and the bound is known to a factor of two.
    let bound = greedy.quantile_us(0.25);
    assert!(modest.sum_us <= bound, "{modest:?} {greedy:?}");
}

/// All of the machine is to be filled ahead, and the page that it waits for comes last of that.
fn work_ahead() {
    const PAGES: u64 = 24 << 10;
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, PAGES, 0)];
    let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    let pid = rig.pid();
    send(pid, Signal::STOP);
    let supervisor = &rig.supervisor;
    std::thread::scope(|scope| {
        let all = HotPages {
            recordings: 1,
            ready: vec![(0, PAGES)],
            exec: Vec::new(),
        };
        let asked = scope.spawn(move || supervisor.prefetch("vm", all));
        guest.tell(&format!("sum {} 1 1", PAGES - 1));
        guest.waits_with(1);
        send(pid, Signal::CONT);
        asked.join().unwrap().unwrap();
    });
    assert_eq!(guest.result(), Some(reference.sum(PAGES - 1, 1)));
    // Had it been filled ahead, nothing would have been copied for it.
    assert_eq!(rig.stats("vm").stats.copied_bytes, 64 << 10);
}

/// The kernel tells of faults first, and lets nobody fill anything until a removal was heard.
fn a_removal() {
    const CROWD: usize = 700;
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 2048, 0)];
    let mut reference = Reference::new(&dir.path().join("image"), 2048, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    // The supervisor, asked later, may be waiting for an answer of the one that stands still.
    let pid = rig.pid();
    send(pid, Signal::STOP);
    guest.tell(&format!("discard-in-a-crowd {CROWD} 1000 100"));
    guest.waits_with(CROWD);
    guest.is_discarding();
    send(pid, Signal::CONT);
    assert_eq!(guest.result().as_deref(), Some("done"));
    reference.forget(1000, 100);
    assert_eq!(guest.sum(0, 2048), Some(reference.sum(0, 2048)));
}

/// A machine reads all of an image that is much larger when it is unpacked.
fn a_cache() {
    const PAGES: u64 = 24 << 10;
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::striped(Encoding::Packed, PAGES, 64, 0, 0),
        Layer::striped(Encoding::Zstd, PAGES, 64, 64, 1),
    ];
    let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.settings.cache_bytes = 4 << 20;
    let rig = Rig::start(config);
    let own_kib = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        line.unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    };
    let before = own_kib();
    let mut guests: Vec<_> = (0..4)
        .map(|nth| rig.guest(&format!("vm-{nth}"), &reference))
        .collect();
    for guest in &mut guests {
        assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    }
    let more = own_kib().saturating_sub(before);
    assert!(more < 8 << 10, "{more} KiB more than with no machine");
}
