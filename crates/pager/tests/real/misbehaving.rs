//! Eight machines on one pager, of which one misbehaves. The seven others read all of their memory meanwhile: half of
//! them before it begins, half after. Nobody of them is lost, nobody gets a wrong byte, and the pager stays.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use memory::Encoding;
use pager::{Attach, Event};
use rustix::fs::{Mode, OFlags};

use super::guest::{Guest, PATIENCE};
use super::reference::{Layer, Reference};
use super::rig::Rig;

pub(crate) const ALL: &[super::Test] = &[
    ("a_crowd_of_faults_starves_nobody", a_crowd_of_faults),
    ("a_flood_of_removals_starves_nobody", a_flood_of_removals),
    ("who_unmaps_its_memory_ends_alone", who_unmaps_its_memory),
    ("who_faults_elsewhere_ends_alone", who_faults_elsewhere),
    ("who_talks_ends_alone", who_talks),
    ("who_hangs_up_ends_alone", who_hangs_up),
    (
        "who_closes_its_descriptor_is_served",
        who_closes_its_descriptor,
    ),
    (
        "nonsense_for_a_handshake_stops_nobody",
        nonsense_for_a_handshake,
    ),
    (
        "silence_for_a_handshake_stops_nobody",
        silence_for_a_handshake,
    ),
    (
        "who_never_reads_answers_is_cut_off",
        who_never_reads_answers,
    ),
];

const PAGES: u64 = 2048;
const GOOD: usize = 7;

/// Runs `misbehave` with the rig, and what every machine must find.
fn among_seven(misbehave: impl FnOnce(&Rig, &Reference) -> Option<Guest>) {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::striped(Encoding::Packed, PAGES, 50, 0, 0),
        Layer::striped(Encoding::Zstd, PAGES, 30, 100, 1),
    ];
    let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let pid = rig.pid();
    let mut good: Vec<Guest> = (0..GOOD)
        .map(|nth| rig.guest(&format!("good-{nth}"), &reference))
        .collect();
    let read = format!("sum 0 {PAGES} 2");
    let (early, late) = good.split_at_mut(GOOD / 2);
    early.iter_mut().for_each(|guest| guest.tell(&read));
    let bad = misbehave(&rig, &reference);
    late.iter_mut().for_each(|guest| guest.tell(&read));
    for guest in &good {
        assert_eq!(guest.result(), Some(reference.sum(0, PAGES)));
    }
    if bad.is_some() {
        // It has not ended its doings, so nobody had to wait for that.
        goes_on(&rig);
    }
    assert_eq!(rig.pid(), pid, "the pager is another one");
    for event in rig.events.try_iter() {
        assert!(matches!(event, Event::Gone(_)), "{event:?}");
    }
    let served = rig.supervisor.vms().unwrap();
    let count = served.iter().filter(|vm| vm.starts_with("good")).count();
    assert_eq!(count, GOOD);
}

/// Waits until the pager has done more for the one that misbehaves.
fn goes_on(rig: &Rig) {
    let done = || {
        let stats = rig.stats("bad").stats;
        (stats.faults, stats.removed_bytes)
    };
    let (before, began) = (done(), Instant::now());
    while done() == before {
        assert!(began.elapsed() < PATIENCE, "it is not served any more");
    }
}

/// It ends for this reason.
fn fails(rig: &Rig, mut bad: Guest, reason: &str) {
    let found = rig.failure("bad");
    assert!(found.contains(reason), "{found}");
    is_gone(rig);
    bad.ended();
}

fn is_gone(rig: &Rig) {
    rig.event(|event| matches!(event, Event::Gone(stats) if stats.vm == "bad").then_some(()));
}

/// As many threads wait at once as the pager remembers, and many more.
fn a_crowd_of_faults() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        assert_eq!(bad.ask("crowd 1500").as_deref(), Some("done"));
        drop(bad);
        is_gone(rig);
        None
    });
}

fn a_flood_of_removals() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        assert_eq!(bad.ask("flood 100 64").as_deref(), Some("done"));
        Some(bad)
    });
}

fn who_unmaps_its_memory() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        bad.ask(&format!("unmap 8 {}", PAGES - 8));
        bad.tell("sum 0 8 1");
        fails(rig, bad, "cannot be filled");
        None
    });
}

fn who_faults_elsewhere() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        bad.tell("stray");
        fails(rig, bad, "outside of guest RAM");
        None
    });
}

fn who_talks() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        bad.tell("say-more");
        fails(rig, bad, "after the handshake");
        None
    });
}

fn who_hangs_up() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        bad.tell("hang-up");
        is_gone(rig);
        bad.ended();
        None
    });
}

/// The daemon and the pager have duplicates of it: what would be zeros without them is right.
fn who_closes_its_descriptor() {
    among_seven(|rig, reference| {
        let mut bad = rig.guest("bad", reference);
        assert_eq!(bad.ask("close").as_deref(), Some("done"));
        assert_eq!(bad.sum(0, PAGES), Some(reference.sum(0, PAGES)));
        None
    });
}

fn nonsense_for_a_handshake() {
    among_seven(|rig, reference| {
        let long = "x".repeat(pager::MAX_HANDSHAKE_BYTES + 1);
        let texts = [
            "",
            "[",
            "\u{1}\u{fffd}",
            "{\"base_host_virt_addr\": []}",
            &long,
        ];
        for text in texts {
            let mut bad = Guest::start(reference.bytes.len());
            bad.tell(&format!("say {text}"));
            // One message of no bytes is as good as none.
            let limit = if text.is_empty() {
                Duration::ZERO
            } else {
                PATIENCE
            };
            assert!(attach(rig, &bad, limit).is_err(), "{text:.20}");
        }
        None
    });
}

fn silence_for_a_handshake() {
    among_seven(|rig, reference| {
        let mut bad = Guest::start(reference.bytes.len());
        assert_eq!(bad.ask("connect").as_deref(), Some("done"));
        let refused = attach(rig, &bad, Duration::from_millis(100)).unwrap_err();
        assert!(refused.to_string().contains("handshake"), "{refused}");
        None
    });
}

fn attach(rig: &Rig, guest: &Guest, limit: Duration) -> Result<(), pager::PagerError> {
    rig.supervisor.attach(Attach {
        vm: "bad".to_owned(),
        listener: &guest.listener,
        expected_pid: Some(guest.pid()),
        limit,
        hot_pages: None,
        record: false,
    })
}

/// One that may ask, a daemon of another build perhaps: it asks for ever and takes no answer.
fn who_never_reads_answers() {
    among_seven(|rig, _| {
        let dir = &rig.config.run_dir;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(dir, flags, Mode::empty()).unwrap();
        // The directory may be too deep for the name of a socket.
        let path = format!("/proc/self/fd/{}/pager-1.sock", dir.as_raw_fd());
        let mut deaf = UnixStream::connect(path).unwrap();
        let question = br#"{"number":1,"request":"stats"}"#;
        let frame = [
            &u32::try_from(question.len()).unwrap().to_le_bytes()[..],
            question,
        ]
        .concat();
        deaf.set_write_timeout(Some(PATIENCE)).unwrap();
        let refused = loop {
            if let Err(error) = deaf.write_all(&frame) {
                break error;
            }
        };
        assert_ne!(refused.kind(), std::io::ErrorKind::WouldBlock, "{refused}");
        None
    });
}
