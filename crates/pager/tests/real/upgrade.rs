//! A daemon of another build: its pagers take the machines to come, the old ones go on with those they have.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::Encoding;
use pager::{Config, Event};
use rustix::process::Signal;

use super::guest::{Guest, PATIENCE};
use super::reference::{Layer, Reference};
use super::rig::{Rig, config, send, wait_for_end};

pub(crate) const ALL: &[super::Test] = &[
    (
        "an_old_pager_drains_beside_one_of_another_build",
        an_old_pager_drains_beside_one_of_another_build,
    ),
    (
        "machines_of_a_draining_pager_that_is_killed_go_to_the_new_build",
        machines_of_a_draining_pager_that_is_killed_go_to_the_new_build,
    ),
    (
        "a_pager_that_is_lost_beside_a_draining_one_is_replaced_by_its_own_build",
        a_pager_that_is_lost_beside_a_draining_one_is_replaced_by_its_own_build,
    ),
    (
        "the_next_daemon_finds_both_builds",
        the_next_daemon_finds_both_builds,
    ),
    (
        "a_build_that_does_not_start_changes_nothing",
        a_build_that_does_not_start_changes_nothing,
    ),
    (
        "a_pager_that_hangs_at_an_upgrade_loses_its_machines_to_the_new_build",
        a_pager_that_hangs_at_an_upgrade_loses_its_machines_to_the_new_build,
    ),
    (
        "of_two_that_take_machines_the_newer_goes_on",
        of_two_that_take_machines_the_newer_goes_on,
    ),
];

const PAGES: u64 = 4096;

/// A daemon of the next build, with what the one before it has left.
struct Upgrade {
    dir: tempfile::TempDir,
    reference: Reference,
    rig: Rig,
    /// Served since before the upgrade. It has read some, and given some back.
    guest: Guest,
    /// What its memory must be.
    wanted: Reference,
    old: i32,
}

impl Upgrade {
    /// The old daemon has ended, the new one has found its pager, and has not yet started one.
    fn prepared() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layers = [
            Layer::striped(Encoding::Packed, PAGES, 400, 0, 0),
            Layer::striped(Encoding::Zstd, PAGES, 100, 50, 1),
        ];
        let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
        let first = Rig::of(dir.path(), &reference);
        let mut guest = first.guest("old", &reference);
        let mut wanted = reference.copy();
        assert_eq!(guest.sum(0, 600), Some(wanted.sum(0, 600)));
        // Some that were read, and some that were not.
        assert_eq!(guest.ask("discard 500 300").as_deref(), Some("done"));
        wanted.forget(500, 300);
        let old = first.pid();
        drop(first);
        let rig = Rig::adopt(build(dir.path(), &reference, "next"));
        assert_eq!(rig.supervisor.pids().unwrap(), [old]);
        Self {
            dir,
            reference,
            rig,
            guest,
            wanted,
            old,
        }
    }

    /// The upgrade is done while the guest reads everything.
    fn under_way() -> Self {
        let mut upgrade = Self::prepared();
        upgrade.guest.tell(&format!("sum 0 {PAGES} 2"));
        upgrade.rig.supervisor.upgrade().unwrap();
        upgrade
    }

    /// The pager for machines to come, which must be of the new build.
    fn newer(&self) -> i32 {
        let pid = self.rig.pid();
        assert_ne!(pid, self.old);
        assert_eq!(program_of(pid), self.dir.path().join("next"));
        pid
    }

    /// What the guest has read since the upgrade.
    fn all_is_right(&self) {
        assert_eq!(self.guest.result(), Some(self.wanted.sum(0, PAGES)));
    }
}

/// A configuration with a program of another name.
fn build(dir: &Path, reference: &Reference, name: &str) -> Config {
    let program = dir.join(name);
    let known = config(dir, &reference.dir);
    std::os::unix::fs::symlink(&known.program, &program).unwrap();
    Config { program, ..known }
}

/// What a pager was started as.
fn program_of(pid: i32) -> PathBuf {
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    line.split('\0').next().unwrap().into()
}

fn until(what: &str, reached: impl Fn() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} takes for ever");
        std::thread::yield_now();
    }
}

/// Nobody was said to have been lost so far.
fn nothing_was_lost(rig: &Rig) {
    for event in rig.events.try_iter() {
        assert!(matches!(event, Event::Gone(_)), "{event:?}");
    }
}

fn an_old_pager_drains_beside_one_of_another_build() {
    let upgrade = Upgrade::under_way();
    let (rig, reference) = (&upgrade.rig, &upgrade.reference);
    let new = upgrade.newer();
    assert_eq!(rig.supervisor.pids().unwrap(), [upgrade.old, new]);
    let mut guest = rig.guest("new", reference);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    upgrade.all_is_right();
    assert_eq!(rig.supervisor.vms().unwrap(), ["new", "old"]);
    assert!(rig.stats("old").stats.removed_bytes > 0, "its figures stay");
    drop(upgrade.guest);
    rig.event(|event| matches!(event, Event::Gone(stats) if stats.vm == "old").then_some(()));
    wait_for_end(upgrade.old);
    until("forgetting it", || rig.supervisor.pids().unwrap() == [new]);
    let left = std::fs::read_dir(upgrade.dir.path()).unwrap();
    let is_socket = |name: &str| name.ends_with(".sock");
    let left: Vec<_> = left
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| is_socket(name))
        .collect();
    assert_eq!(left.len(), 1, "it leaves nothing behind: {left:?}");
    nothing_was_lost(rig);
    guest.ask("discard 7 1");
    assert_eq!(rig.stats("new").stats.takeovers, 0);
}

fn machines_of_a_draining_pager_that_is_killed_go_to_the_new_build() {
    let mut upgrade = Upgrade::under_way();
    let (rig, reference) = (&upgrade.rig, &upgrade.reference);
    let new = upgrade.newer();
    let mut guest = rig.guest("new", reference);
    assert_eq!(guest.sum(0, 100), Some(reference.sum(0, 100)));
    send(upgrade.old, Signal::KILL);
    assert_eq!(rig.took_over(), ["old"]);
    upgrade.all_is_right();
    assert_eq!(rig.supervisor.pids().unwrap(), [new]);
    assert_eq!(rig.stats("old").stats.takeovers, 1);
    assert_eq!(rig.stats("new").stats.takeovers, 0, "it had another one");
    // From now on they share their fate.
    upgrade.guest.ask("discard 2000 50");
    upgrade.wanted.forget(2000, 50);
    send(new, Signal::KILL);
    assert_eq!(rig.took_over(), ["new", "old"]);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    upgrade.guest.tell(&format!("sum 0 {PAGES} 2"));
    upgrade.all_is_right();
}

fn a_pager_that_is_lost_beside_a_draining_one_is_replaced_by_its_own_build() {
    let upgrade = Upgrade::under_way();
    let (rig, reference) = (&upgrade.rig, &upgrade.reference);
    let lost = upgrade.newer();
    let mut guest = rig.guest("new", reference);
    guest.tell(&format!("sum 0 {PAGES} 2"));
    send(lost, Signal::KILL);
    assert_eq!(rig.took_over(), ["new"], "the other one has its pager");
    assert_ne!(upgrade.newer(), lost);
    assert_eq!(guest.result(), Some(reference.sum(0, PAGES)));
    upgrade.all_is_right();
    assert_eq!(rig.stats("old").stats.takeovers, 0);
    drop(upgrade.guest);
    wait_for_end(upgrade.old);
}

fn the_next_daemon_finds_both_builds() {
    let mut upgrade = Upgrade::under_way();
    let new = upgrade.newer();
    let guest = upgrade.rig.guest("new", &upgrade.reference);
    upgrade.all_is_right();
    let config = upgrade.rig.config.clone();
    drop(upgrade.rig);
    upgrade.rig = Rig::adopt(config);
    let rig = &upgrade.rig;
    assert_eq!(rig.supervisor.vms().unwrap(), ["new", "old"]);
    assert_eq!(rig.supervisor.pids().unwrap(), [upgrade.old, new]);
    let mut late = rig.guest("late", &upgrade.reference);
    assert_eq!(late.sum(0, 100), Some(upgrade.reference.sum(0, 100)));
    // Those to come are on the new one.
    upgrade.guest.tell(&format!("sum 0 {PAGES} 2"));
    send(upgrade.old, Signal::KILL);
    assert_eq!(rig.took_over(), ["old"]);
    upgrade.all_is_right();
    assert_eq!(rig.supervisor.pids().unwrap(), [new]);
    drop([guest, late]);
    nothing_was_lost(rig);
}

/// The old one even takes machines to come: all is as it was.
fn a_build_that_does_not_start_changes_nothing() {
    let mut upgrade = Upgrade::prepared();
    let program = upgrade.dir.path().join("next");
    for (nth, broken) in ["/bin/false", "/does/not/exist"].into_iter().enumerate() {
        std::fs::remove_file(&program).unwrap();
        std::os::unix::fs::symlink(broken, &program).unwrap();
        let rig = &upgrade.rig;
        assert!(rig.supervisor.upgrade().is_err(), "{broken}");
        assert_eq!(rig.supervisor.pids().unwrap(), [upgrade.old]);
        let mut guest = rig.guest(&format!("new-{nth}"), &upgrade.reference);
        assert_eq!(guest.sum(0, 500), Some(upgrade.reference.sum(0, 500)));
    }
    upgrade.guest.tell(&format!("sum 0 {PAGES} 2"));
    upgrade.all_is_right();
}

fn a_pager_that_hangs_at_an_upgrade_loses_its_machines_to_the_new_build() {
    let mut upgrade = Upgrade::prepared();
    let mut config = upgrade.rig.config.clone();
    // The new pager must manage this on a busy machine.
    config.limits.answer = Duration::from_secs(3);
    drop(upgrade.rig);
    upgrade.rig = Rig::adopt(config);
    send(upgrade.old, Signal::STOP);
    upgrade.guest.tell(&format!("sum 0 {PAGES} 2"));
    upgrade.rig.supervisor.upgrade().unwrap();
    assert_eq!(upgrade.rig.took_over(), ["old"]);
    upgrade.all_is_right();
    let new = upgrade.newer();
    assert_eq!(upgrade.rig.supervisor.pids().unwrap(), [new]);
}

/// As a daemon leaves them that is killed between starting a new pager and telling the old one.
fn of_two_that_take_machines_the_newer_goes_on() {
    let upgrade = Upgrade::prepared();
    let elsewhere = upgrade.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let other = Rig::start(Config {
        run_dir: elsewhere.clone(),
        ..upgrade.rig.config.clone()
    });
    let mut guest = other.guest("new", &upgrade.reference);
    let (new, config) = (other.pid(), upgrade.rig.config.clone());
    drop((other, upgrade.rig));
    let newer = upgrade.dir.path().join("pager-2.sock");
    std::fs::rename(elsewhere.join("pager-1.sock"), newer).unwrap();
    let rig = Rig::adopt(config);
    assert_eq!(rig.supervisor.pids().unwrap(), [upgrade.old, new]);
    assert_eq!(rig.supervisor.vms().unwrap(), ["new", "old"]);
    drop(upgrade.guest);
    // It is supervised, and ends all the same.
    wait_for_end(upgrade.old);
    assert_eq!(guest.sum(0, PAGES), Some(upgrade.reference.sum(0, PAGES)));
    nothing_was_lost(&rig);
}
