//! Figures for `cargo xtask bench`, which judges them: one line of JSON, times in milliseconds.
//!
//! What is compared is measured in turn on the same bytes, so that a busy host slows both sides.

use std::time::{Duration, Instant};

use memory::{Encoding, PAGE_BYTES};
use pager::{Attach, HotPages, fake};
use serde_json::{Value, json};

use super::reference::{Layer, Reference};
use super::rig::{Rig, config};

const MIB: usize = 1 << 20;

/// Through the pager in the measurement of its throughput.
const BYTES: usize = 128 * MIB;

/// Everything.
pub(crate) fn measure() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rounds = if quick { 3 } else { 9 };
    let figures = json!({
        "packed": throughput(Encoding::Packed, rounds),
        "compressed": throughput(Encoding::Zstd, rounds),
        "takeover": takeover(rounds),
    });
    println!("{figures}");
}

/// Hands the memory of a machine in this process over.
fn attach(rig: &Rig, vm: &str, guest: &mut fake::Guest) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("uffd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    guest.hand_over(&socket).unwrap();
    rig.supervisor
        .attach(Attach {
            vm: vm.into(),
            listener: &listener,
            expected_pid: Some(std::process::id()),
            limit: Duration::from_secs(10),
            hot_pages: None,
            record: false,
        })
        .unwrap();
}

fn ms(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    started.elapsed().as_secs_f64() * 1e3
}

/// 128 MiB into a machine, filled ahead of faults; the same by hand, and a copy into fresh memory.
fn throughput(encoding: Encoding, rounds: usize) -> Value {
    let pages = (BYTES / PAGE_BYTES) as u64;
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(encoding, pages, 0)];
    let reference = Reference::new(&dir.path().join("image"), pages, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let (mut copies, mut by_hand) = (Vec::new(), Vec::new());
    let (mut first, mut later) = (Vec::new(), Vec::new());
    // A machine that lets go of its memory and runs on is killed, and these are in this process.
    let mut guests = Vec::new();
    for round in 0..rounds {
        // As large as this, an allocation is pages that nobody has touched.
        let mut fresh = Vec::<u8>::with_capacity(BYTES);
        copies.push(ms(|| fresh.extend_from_slice(&reference.bytes)));
        std::hint::black_box(&fresh);
        drop(fresh);
        let guest = fake::Guest::new(BYTES).unwrap();
        by_hand.push(ms(|| guest.fill_by_hand(0, &reference.bytes).unwrap()));
        drop(guest);
        // Another pager has read and checked nothing yet.
        rig.supervisor.upgrade().unwrap();
        for (name, times) in [("first", &mut first), ("later", &mut later)] {
            let vm = format!("{name}-{round}");
            let mut guest = fake::Guest::new(BYTES).unwrap();
            attach(&rig, &vm, &mut guest);
            times.push(ms(|| fill(&rig, &vm)));
            guests.push(guest);
        }
    }
    // Nobody may see them go.
    drop(rig);
    drop(guests);
    json!({ "copy": copies, "by_hand": by_hand, "first": first, "later": later })
}

fn fill(rig: &Rig, vm: &str) {
    let hot = HotPages {
        recordings: 1,
        ready: vec![(0, (BYTES / PAGE_BYTES) as u64)],
        exec: Vec::new(),
    };
    rig.supervisor.prefetch(vm, hot).unwrap();
    // Asking costs the pager a little, and waiting between a millisecond at most.
    while rig.stats(vm).stats.ahead_bytes < BYTES as u64 {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// From the loss of a pager until its eight machines are served again.
fn takeover(rounds: usize) -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::striped(Encoding::Packed, 16384, 3, 0, 0)];
    let reference = Reference::new(&dir.path().join("image"), 16384, &layers);
    let mut config = config(dir.path(), &reference.dir);
    config.limits.restarts = u32::MAX;
    let rig = Rig::start(config);
    let _guests: Vec<_> = (0..8)
        .map(|nth| rig.guest(&format!("vm-{nth}"), &reference))
        .collect();
    let lost = |_| {
        rig.signal_pager(rustix::process::Signal::KILL);
        let took = rig.event(|event| match event {
            pager::Event::TookOver { took, .. } => Some(took),
            _ => None,
        });
        took.as_secs_f64() * 1e3
    };
    (0..rounds).map(lost).collect()
}
