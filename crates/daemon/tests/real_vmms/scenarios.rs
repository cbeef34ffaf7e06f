//! What is done with instances, and what must be true then.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hypervisor::firecracker::shmem_keeps_pages_apart;
use model::{Backend, Compression, InstanceId, State};
use sha2::{Digest, Sha256};

use crate::host::{Host, Vmm};
use crate::life::{Life, PATIENCE, is_alive, several};
use crate::probe::{BALLAST, BALLAST_PAGES, FREE_PAGE};
use crate::{LAUNCH, Run};

/// On each VMM.
pub(crate) const ON_ONE: [(&str, Run); 5] = [
    ("a_template_fans_out", a_template_fans_out),
    (
        "a_running_machine_is_forked_and_runs_on",
        a_running_machine_is_forked_and_runs_on,
    ),
    ("a_warm_fork_is_taken_over", a_warm_fork_is_taken_over),
    ("memory_is_compressed", memory_is_compressed),
    (
        "machines_with_and_without_a_network_take_turns",
        machines_with_and_without_a_network,
    ),
];

/// On several at once.
pub(crate) const ON_BOTH: [(&str, Run); 1] = [("they_live_side_by_side", they_live_side_by_side)];

/// Forks of the fan-out.
const FORKS: u32 = 8;

/// Pages that a fork writes of its own.
const OWN_PAGES: u64 = 64;

/// Number of pages that do not hold what `seed` gives.
fn wrong(life: &Life<'_>, id: &InstanceId, first: u64, count: u64, seed: u64) -> u64 {
    let first = FREE_PAGE + first;
    let answer = life.ask(id, &format!("wrong {first} {count} {seed}"));
    answer.parse().unwrap()
}

fn tag(life: &Life<'_>, id: &InstanceId, seed: u64) {
    life.ask(id, &format!("tag {FREE_PAGE} {OWN_PAGES} {seed}"));
}

/// Writes what only this fork has.
fn make_own(life: &Life<'_>, fork: &InstanceId, seed: u64) {
    assert_eq!(
        wrong(life, fork, 0, BALLAST_PAGES, BALLAST),
        0,
        "the template's memory"
    );
    assert_eq!(life.ask(fork, "get disk owner"), "template");
    assert_eq!(life.exec(fork, "counter"), "2");
    tag(life, fork, seed);
    life.ask(fork, &format!("put disk owner fork-{seed}"));
}

/// It has what it wrote, and the template's where it has written nothing.
fn is_own(life: &Life<'_>, fork: &InstanceId, seed: u64) {
    assert_eq!(wrong(life, fork, 0, OWN_PAGES, seed), 0, "fork {seed}");
    let rest = BALLAST_PAGES - OWN_PAGES;
    assert_eq!(
        wrong(life, fork, OWN_PAGES, rest, BALLAST),
        0,
        "fork {seed}"
    );
    assert_eq!(life.ask(fork, "get disk owner"), format!("fork-{seed}"));
}

/// Every file of a directory by its digest.
fn digests(dir: &Path) -> BTreeMap<PathBuf, [u8; 32]> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        found.insert(path, Sha256::digest(bytes).into());
    }
    found
}

/// The file that the instance writes to.
fn top_disk(host: &Host, id: &InstanceId) -> std::fs::Metadata {
    let dir = host.layout.instance(id).disk();
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    std::fs::metadata(files.last().unwrap()).unwrap()
}

/// Boot, standby, promotion, eight forks with memory and disk of their own, a fork's own standby, a killed daemon,
/// deletion; and through all of it nobody writes to the template's image.
fn a_template_fans_out(host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    assert!(!hypervisor::is_running(
        &host.layout.instance(&template).run()
    ));
    let image = host
        .records
        .instance(&template)
        .unwrap()
        .record
        .standby
        .unwrap();
    let image_dir = host.layout.instance(&template).image(&image);
    let before = digests(&image_dir);

    let forks = life.forks(&template, "fork", several(FORKS));
    let numbered: Vec<(u64, &InstanceId)> = (100..).zip(&forks).collect();
    for (seed, fork) in &numbered {
        make_own(&life, fork, *seed);
    }
    let mut disks = BTreeSet::new();
    let mut slots = BTreeSet::new();
    for (seed, fork) in &numbered {
        is_own(&life, fork, *seed);
        let top = top_disk(&host, fork);
        assert_eq!(top.nlink(), 1, "nobody else has what it writes to");
        disks.insert(top.ino());
        let vm = life.published(fork).vm.unwrap();
        let memory = life.run(vm.memory().unwrap().report()).unwrap();
        assert!(memory.ram_shared_bytes > 0, "{memory:?}");
        let lease = host.records.instance(fork).unwrap().record.lease;
        slots.extend(lease.map(|lease| lease.slot));
    }
    assert_eq!(disks.len(), forks.len(), "each has a disk of its own");
    let connected = if rustix::process::geteuid().is_root() {
        forks.len()
    } else {
        0
    };
    assert_eq!(slots.len(), connected, "each has a slot of its own");

    // One sleeps and wakes with what it had, one stays asleep.
    life.run(life.instances.standby(&forks[0], None)).unwrap();
    life.run(life.instances.restore(&forks[0])).unwrap();
    life.run(life.instances.standby(&forks[1], None)).unwrap();
    is_own(&life, &forks[0], 100);
    assert_eq!(life.exec(&forks[0], "counter"), "3");

    let processes: Vec<_> = forks.iter().map(|fork| life.process(fork)).collect();
    life.end();
    let life = Life::begin(&host);
    assert_eq!(life.state(&template), State::Template);
    assert_eq!(life.state(&forks[1]), State::Standby);
    for (fork, process) in forks.iter().zip(processes) {
        assert_eq!(life.process(fork), process, "it is the same machine");
    }
    assert_eq!(life.exec(&forks[0], "counter"), "4");
    life.run(life.instances.restore(&forks[1])).unwrap();
    for (seed, fork) in &numbered {
        life.reach(fork, State::Running);
        is_own(&life, fork, *seed);
    }
    // A template can be forked by the daemon that has only found it.
    let late = life.forks(&template, "late", several(1));
    make_own(&life, &late[0], 7);
    assert_eq!(
        digests(&image_dir),
        before,
        "nobody has written to the image"
    );
    life.delete(late.into_iter().chain(forks).chain([template]));
    life.end();
}

fn a_running_machine_is_forked_and_runs_on(host: Host) {
    let life = Life::begin(&host);
    let source = life.running("source", host.vmms[0]);
    assert_eq!(life.exec(&source, "counter"), "1");
    tag(&life, &source, 5);
    life.ask(&source, "put disk owner source");
    let process = life.process(&source);
    let mut ask = several(2);
    ask.from_running = true;
    let forks = life.forks(&source, "fork", ask);
    assert_eq!(life.process(&source), process);
    for id in forks.iter().chain([&source]) {
        assert_eq!(life.exec(id, "counter"), "2", "each goes on from there");
        assert_eq!(wrong(&life, id, 0, OWN_PAGES, 5), 0);
        assert_eq!(life.ask(id, "get disk owner"), "source");
    }
    tag(&life, &source, 6);
    life.ask(&source, "put disk owner changed");
    for fork in &forks {
        assert_eq!(wrong(&life, fork, 0, OWN_PAGES, 5), 0);
        assert_eq!(life.ask(fork, "get disk owner"), "source");
    }
    // What was saved once is saved again with what came after.
    life.run(life.instances.standby(&source, None)).unwrap();
    life.run(life.instances.restore(&source)).unwrap();
    assert_eq!(wrong(&life, &source, 0, OWN_PAGES, 6), 0);
    assert_eq!(life.ask(&source, "get disk owner"), "changed");
    // Off and on again: the disk stays, the memory does not.
    life.run(life.instances.stop(&source)).unwrap();
    assert_eq!(life.state(&source), State::Stopped);
    life.run(life.instances.start(&source, Default::default()))
        .unwrap();
    life.reach(&source, State::Running);
    assert_eq!(life.exec(&source, "counter"), "1");
    assert_eq!(life.ask(&source, "get disk owner"), "changed");
    life.delete(forks.into_iter().chain([source]));
    life.end();
}

fn a_warm_fork_is_taken_over(mut host: Host) {
    host.warm = 1;
    let host = host;
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let mut forks = life.forks(&template, "first", several(1));
    let prepared = life.run(async {
        let ready = async {
            loop {
                let warm = life.instances.published(&template).unwrap().warm;
                if let Some(vm) = warm.first() {
                    return vm.process();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.unwrap()
    });
    forks.extend(life.forks(&template, "second", several(1)));
    assert_eq!(life.process(&forks[1]), Some(prepared));
    for (seed, fork) in (20..).zip(&forks) {
        make_own(&life, fork, seed);
    }
    for (seed, fork) in (20..).zip(&forks) {
        is_own(&life, fork, seed);
    }
    life.run(life.instances.drop_warm());
    assert!(life.published(&template).warm.is_empty());
    life.delete(forks.into_iter().chain([template]));
    life.end();
}

/// Compressed and plain images on top of each other: the machine wakes as it was, and forks have its memory from what
/// fits their VMM.
fn memory_is_compressed(host: Host) {
    const ZSTD: Option<Compression> = Some(Compression::Zstd { level: 1 });
    if !shmem_keeps_pages_apart() {
        println!("skipped: this host keeps files in memory on huge pages");
        return;
    }
    let life = Life::begin(&host);
    let source = life.running("source", host.vmms[0]);
    assert_eq!(life.exec(&source, "counter"), "1");
    life.ask(&source, "put disk owner fork-5");
    life.run(life.instances.standby(&source, ZSTD)).unwrap();
    let stored = life.published(&source).image.unwrap();
    assert_eq!((stored.layers, stored.compressed_layers), (1, 1));
    assert!(stored.stored_bytes < stored.ram_bytes, "{stored:?}");
    life.run(life.instances.restore(&source)).unwrap();
    assert_eq!(life.published(&source).image, None, "it is awake");
    assert_eq!(wrong(&life, &source, 0, BALLAST_PAGES, BALLAST), 0);
    tag(&life, &source, 5);

    life.run(life.instances.standby(&source, None)).unwrap();
    let stored = life.published(&source).image.unwrap();
    assert_eq!((stored.layers, stored.compressed_layers), (2, 1));
    life.run(life.instances.promote(&source, Default::default()))
        .unwrap();
    let forks = life.forks(&source, "fork", several(2));
    let backend = match host.vmms[0] {
        Vmm::Firecracker | Vmm::JailedFirecracker => Backend::Uffd,
        Vmm::QemuKvm => Backend::File,
    };
    for (seed, fork) in (100..).zip(&forks) {
        let record = host.records.instance(fork).unwrap().record;
        assert_eq!(record.memory.backend, Some(backend));
        is_own(&life, fork, 5);
        assert_eq!(life.exec(fork, "counter"), "2");
        tag(&life, fork, seed);
        life.ask(fork, &format!("put disk owner fork-{seed}"));
    }
    for (seed, fork) in (100..).zip(&forks) {
        life.run(life.instances.standby(fork, ZSTD)).unwrap();
        life.run(life.instances.restore(fork)).unwrap();
        is_own(&life, fork, seed);
        assert_eq!(life.exec(fork, "counter"), "3");
    }
    life.delete(forks.into_iter().chain([source]));
    life.end();
}

fn they_live_side_by_side(host: Host) {
    let life = Life::begin(&host);
    let mut forks = Vec::new();
    let mut templates = Vec::new();
    for vmm in host.vmms {
        let template = life.template(vmm.label().replace('_', "-").as_str(), *vmm);
        let name = format!("of-{}", vmm.name());
        for fork in life.forks(&template, &name, several(2)) {
            forks.push((100 + forks.len() as u64, fork));
        }
        templates.push(template);
    }
    for (seed, fork) in &forks {
        make_own(&life, fork, *seed);
    }
    // One of each has lost its record when the daemon comes back.
    let orphans = [forks.remove(2).1, forks.remove(0).1];
    let lost: Vec<_> = orphans.iter().map(|id| life.process(id).unwrap()).collect();
    let kept: Vec<_> = forks.iter().map(|(_, id)| life.process(id)).collect();
    life.end();
    for id in &orphans {
        host.records.remove(id).unwrap();
    }
    let life = Life::begin(&host);
    assert_eq!(life.swept.directories, orphans.len() as u64);
    for process in lost {
        assert!(!is_alive(process), "nobody knows it");
    }
    for ((seed, fork), process) in forks.iter().zip(kept) {
        life.reach(fork, State::Running);
        assert_eq!(life.process(fork), process);
        is_own(&life, fork, *seed);
        assert_eq!(life.exec(fork, "counter"), "3");
    }
    life.delete(forks.into_iter().map(|(_, id)| id).chain(templates));
    life.end();
}

/// A launcher that waits expects the next machine to be as the last one was. One that is not gets what it was made with.
fn machines_with_and_without_a_network(mut host: Host) {
    if !host.connected {
        println!("skipped: only root makes networks");
        return;
    }
    host.connected = false;
    let life = Life::begin(&host);
    let alone = life.template("alone", host.vmms[0]);
    life.end();
    host.connected = true;
    let life = Life::begin(&host);
    let linked = life.template("linked", host.vmms[0]);
    for round in 0..2 {
        for (name, template, connected) in [
            ("alone", &alone, false),
            ("linked", &linked, true),
            ("again", &linked, true),
        ] {
            a_launcher_waits();
            let fork = life.forks(template, &format!("{name}-{round}"), several(1));
            let pid = life.process(&fork[0]).unwrap().pid;
            assert_eq!(has_card(pid), connected, "{name}, {round}");
            assert_eq!(life.exec(&fork[0], "counter"), "2");
            life.delete(fork);
        }
    }
    life.delete([alone, linked]);
    life.end();
}

fn a_launcher_waits() {
    let is_launcher = |pid: &str| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(LAUNCH.as_bytes())
    };
    let waits = || {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let children = threads.flat_map(|thread| {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let pids = children.unwrap_or_default();
            pids.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        });
        children.into_iter().any(|pid| is_launcher(&pid))
    };
    let began = Instant::now();
    while !waits() {
        assert!(began.elapsed() < PATIENCE, "no launcher waits");
        std::thread::yield_now();
    }
}

/// Whether there is more than a loopback where the process is. Never is it where its daemon is.
fn has_card(pid: i32) -> bool {
    let place = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(place(&pid.to_string()), place("self"));
    let cards = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    // Two lines of headings.
    let mut names = cards.lines().skip(2).map(str::trim_start);
    names.any(|card| !card.starts_with("lo:"))
}
