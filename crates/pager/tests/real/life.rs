//! Pagers come and go with their image, daemons and machines.

use memory::Encoding;
use pager::{Event, HotPages, Mark};
use rustix::process::Signal;

use super::reference::{Layer, Reference};
use super::rig::{Rig, wait_for_end};

pub(crate) const ALL: &[super::Test] = &[
    (
        "another_daemon_finds_pagers_and_machines",
        another_daemon_finds_pagers_and_machines,
    ),
    ("hot_pages_save_faults", hot_pages_save_faults),
    (
        "a_complete_machine_needs_no_pager",
        a_complete_machine_needs_no_pager,
    ),
    ("a_pager_has_no_rights", a_pager_has_no_rights),
    (
        "a_host_is_asked_before_pagers_are_needed",
        a_host_is_asked_before_pagers_are_needed,
    ),
];

const PAGES: u64 = 4096;

fn image(dir: &std::path::Path) -> Reference {
    let layers = [
        Layer::striped(Encoding::Packed, PAGES, 400, 0, 0),
        Layer::striped(Encoding::Zstd, PAGES, 100, 50, 1),
    ];
    Reference::new(&dir.join("image"), PAGES, &layers)
}

fn another_daemon_finds_pagers_and_machines() {
    let dir = tempfile::tempdir().unwrap();
    let mut reference = image(dir.path());
    let first = Rig::of(dir.path(), &reference);
    let mut guest = first.guest("vm", &reference);
    guest.ask("discard 7 100");
    reference.forget(7, 100);
    let (pid, config) = (first.pid(), first.config.clone());
    drop(first);
    // Nobody supervises, and the machine is served.
    assert_eq!(guest.sum(0, 500), Some(reference.sum(0, 500)));
    let second = Rig::adopt(config);
    assert_eq!(second.supervisor.vms().unwrap(), ["vm"]);
    assert_eq!(second.pid(), pid);
    second.signal_pager(Signal::KILL);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    assert_ne!(second.pid(), pid);
    drop(guest);
    second.event(|event| matches!(event, Event::Gone(_)).then_some(()));
    // Without machines it leaves no process behind.
    let pid = second.pid();
    drop(second);
    wait_for_end(pid);
}

fn hot_pages_save_faults() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let rig = Rig::of(dir.path(), &reference);
    let mut recorded = rig.guest("recorded", &reference);
    recorded.sum(1000, 300);
    assert_eq!(rig.supervisor.mark("recorded", Mark::Ready).unwrap(), None);
    recorded.sum(200, 100);
    let hot = rig
        .supervisor
        .mark("recorded", Mark::FirstExec)
        .unwrap()
        .unwrap();
    let image_id = rig.supervisor.image_id();
    hot.save(dir.path(), image_id).unwrap();
    recorded.sum(3000, 100);
    assert_eq!(
        rig.supervisor.mark("recorded", Mark::FirstExec).unwrap(),
        None
    );
    let holds = |runs: &[(u64, u64)], page| {
        runs.iter()
            .any(|(first, count)| (*first..first + count).contains(&page))
    };
    assert!((1000..1300).all(|page| holds(&hot.ready, page)), "{hot:?}");
    assert!((200..300).all(|page| holds(&hot.exec, page)), "{hot:?}");
    assert!(
        !holds(&hot.exec, 3050) && !holds(&hot.ready, 3050),
        "{hot:?}"
    );

    let loaded = HotPages::load(dir.path(), image_id).unwrap();
    let mut warm = rig.guest_with("warm", &reference, loaded);
    let deadline = std::time::Instant::now() + super::guest::PATIENCE;
    while rig.stats("warm").stats.ahead_bytes < hot.page_count() * 4096 {
        assert!(std::time::Instant::now() < deadline, "it is not filled");
    }
    assert_eq!(warm.sum(1000, 300), Some(reference.sum(1000, 300)));
    assert_eq!(warm.sum(200, 100), Some(reference.sum(200, 100)));
    assert_eq!(rig.stats("warm").stats.faults, 0);
    assert_eq!(warm.sum(0, PAGES), Some(reference.sum(0, PAGES)));
}

fn a_complete_machine_needs_no_pager() {
    let dir = tempfile::tempdir().unwrap();
    let mut reference = image(dir.path());
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    guest.sum(10, 20);
    guest.ask("discard 15 10");
    reference.forget(15, 10);
    guest.ask("write 60 y");
    reference.bytes[60 * 4096] = b'y';
    rig.supervisor.graduate("vm", 16 << 20).unwrap();
    // It goes on meanwhile.
    assert_eq!(guest.sum(0, 300), Some(reference.sum(0, 300)));
    guest.ask("discard 250 10");
    reference.forget(250, 10);
    // Whoever takes over goes on with it.
    rig.signal_pager(Signal::KILL);
    rig.event(|event| matches!(event, Event::Graduated(_)).then_some(()));
    assert_eq!(rig.supervisor.vms().unwrap(), Vec::<String>::new());
    let pid = rig.pid();
    drop(rig);
    wait_for_end(pid);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    guest.ask("discard 400 10");
    reference.forget(400, 10);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
}

fn a_pager_has_no_rights() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let rig = Rig::of(dir.path(), &reference);
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace()
            .skip(1)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(field("Seccomp:"), "2");
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", rig.pid()))
        .unwrap()
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    // Standard descriptors, listener, two layers, poller, and the supervisor's connection.
    assert_eq!(open.len(), 8, "{open:?}");
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Threads:"), "1");
    if let Some(uid) = rig.config.uid {
        assert_eq!(field("Uid:"), [uid.to_string().as_str(); 4].join(" "));
        assert_eq!(field("Groups:"), "");
        assert_eq!(field("CapEff:"), "0000000000000000");
        let network = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(network(&rig.pid().to_string()), network("self"));
    }
}

fn a_host_is_asked_before_pagers_are_needed() {
    // Where there is none, these tests do not run.
    assert!(pager::userfaultfd().is_ok());
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_coppice-pager"));
    let patience = super::guest::PATIENCE;
    let check = |program, uid| pager::check_confinement(program, &[], uid, patience);
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(check(program, is_root.then_some(64_321)), Ok(()));
    if is_root {
        // No such user: the number means "leave it as it is".
        let refused = check(program, Some(u32::MAX));
        assert!(refused.is_err(), "it has kept its rights");
    }
    let missing = check(std::path::Path::new("/does/not/exist"), None).unwrap_err();
    assert!(missing.contains("cannot be started"), "{missing}");
    let mute = check(std::path::Path::new("/bin/false"), None).unwrap_err();
    assert!(mute.contains("ends with"), "{mute}");
}
