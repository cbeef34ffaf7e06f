//! Measurements, printed and never judged: `cargo test --release -p pager --test real -- speed`.
//!
//! Quotients are what counts; both sides of each are measured in turn on the same bytes.

use std::time::{Duration, Instant};

use memory::{Encoding, PAGE_BYTES};
use pager::{Attach, HotPages, Mark, Settings, fake};

use super::reference::{Layer, Reference};
use super::rig::{Rig, config};

pub(crate) const ALL: &[super::Test] = &[
    ("speed_throughput", throughput),
    ("speed_working_set", working_set),
    ("speed_takeover", takeover),
];

const MIB: usize = 1 << 20;
/// Repetitions; the median is shown.
const ROUNDS: usize = 9;

/// A machine in this process, attached.
fn attached(
    rig: &Rig,
    vm: &str,
    ram_bytes: usize,
    hot_pages: Option<HotPages>,
    record: bool,
) -> fake::Guest {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("uffd.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut guest = fake::Guest::new(ram_bytes).unwrap();
    guest.hand_over(&socket).unwrap();
    rig.supervisor
        .attach(Attach {
            vm: vm.into(),
            listener: &listener,
            expected_pid: Some(std::process::id()),
            limit: Duration::from_secs(10),
            hot_pages,
            record,
        })
        .unwrap();
    guest
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

/// Touches each page of a range, as a guest that works through it does.
fn touch(guest: &fake::Guest, bytes: usize) {
    for offset in (0..bytes).step_by(PAGE_BYTES) {
        guest.read(offset, &mut [0]);
    }
}

fn show(what: &str, time: Duration, bytes: usize) {
    let rate = bytes as f64 / time.as_secs_f64() / (1 << 30) as f64;
    println!(
        "{what:<60} {:>9.2} ms {rate:>7.2} GiB/s",
        time.as_secs_f64() * 1e3
    );
}

/// 128 MiB through the pager, by completing a machine, against the same by hand and against a copy into fresh memory.
fn throughput() {
    const BYTES: usize = 128 * MIB;
    let pages = (BYTES / PAGE_BYTES) as u64;
    for encoding in [Encoding::Packed, Encoding::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let reference = Reference::new(
            &dir.path().join("image"),
            pages,
            &[Layer::whole(encoding, pages, 0)],
        );
        let mut config = config(dir.path(), &reference.dir);
        config.settings.ahead_bytes = 2 << 20;
        let rig = Rig::start(config);
        let (mut copies, mut hands, mut first, mut pagers) =
            (Vec::new(), Vec::new(), None, Vec::new());
        for round in 0..ROUNDS {
            // As large as this, an allocation is pages that nobody has touched.
            let mut fresh = Vec::<u8>::with_capacity(BYTES);
            copies.push(timed(|| fresh.extend_from_slice(&reference.bytes)));
            std::hint::black_box(&fresh);
            drop(fresh);
            let by_hand = fake::Guest::new(BYTES).unwrap();
            hands.push(timed(|| by_hand.fill_by_hand(0, &reference.bytes).unwrap()));
            drop(by_hand);
            let vm = format!("vm-{round}");
            let guest = attached(&rig, &vm, BYTES, None, false);
            let hot = HotPages {
                recordings: 1,
                ready: vec![(0, pages)],
                exec: Vec::new(),
            };
            let time = timed(|| {
                rig.supervisor.prefetch(&vm, hot).unwrap();
                // Asking costs the pager a little, and waiting between a millisecond at most.
                while rig.stats(&vm).stats.ahead_bytes < BYTES as u64 {
                    std::thread::park_timeout(Duration::from_millis(1));
                }
            });
            match first {
                // The first reads and checks the image.
                None => first = Some(time),
                Some(_) => pagers.push(time),
            }
            drop(guest);
        }
        let (copy, hand, pager) = (median(copies), median(hands), median(pagers));
        println!("{encoding:?}, 128 MiB:");
        show("  copy into fresh memory", copy, BYTES);
        show("  UFFDIO_COPY of everything by hand", hand, BYTES);
        show(
            "  pager, first machine (reads and checks the image)",
            first.unwrap(),
            BYTES,
        );
        show("  pager, later machines", pager, BYTES);
        println!(
            "  pager / copy into fresh memory: {:.2}",
            copy.as_secs_f64() / pager.as_secs_f64()
        );
        println!(
            "  pager / by hand: {:.2}",
            hand.as_secs_f64() / pager.as_secs_f64()
        );
    }
}

/// 16 MiB, page after page, by how much is filled around a fault.
fn working_set() {
    const BYTES: usize = 16 * MIB;
    let pages = (4 * BYTES / PAGE_BYTES) as u64;
    for encoding in [Encoding::Packed, Encoding::Zstd] {
        let dir = tempfile::tempdir().unwrap();
        let reference = Reference::new(
            &dir.path().join("image"),
            pages,
            &[Layer::whole(encoding, pages, 0)],
        );
        for batch in [4 << 10, 64 << 10, 2 << 20] {
            let run_dir = tempfile::tempdir().unwrap();
            let mut config = config(run_dir.path(), &reference.dir);
            config.settings = Settings {
                batch_bytes: batch,
                ..Settings::default()
            };
            let rig = Rig::start(config);
            let recorded = attached(&rig, "recorded", 4 * BYTES, None, true);
            touch(&recorded, BYTES);
            let hot = rig.supervisor.mark("recorded", Mark::FirstExec).unwrap();
            let (mut cold, mut warm) = (Vec::new(), Vec::new());
            for round in 0..ROUNDS {
                let vm = format!("cold-{round}");
                let guest = attached(&rig, &vm, 4 * BYTES, None, false);
                cold.push(timed(|| touch(&guest, BYTES)));
                if round == 0 {
                    let latency = rig.stats(&vm).stats.latency;
                    println!(
                        "{encoding:?}, {} KiB: service of a fault p50 < {} us, p99 < {} us, mean {} us, {} faults",
                        batch >> 10,
                        latency.quantile_us(0.5),
                        latency.quantile_us(0.99),
                        latency.sum_us / latency.count().max(1),
                        latency.count(),
                    );
                }
                drop(guest);
                let guest = attached(
                    &rig,
                    &format!("warm-{round}"),
                    4 * BYTES,
                    hot.clone(),
                    false,
                );
                warm.push(timed(|| touch(&guest, BYTES)));
            }
            show("  16 MiB page by page", median(cold), BYTES);
            show("  with hot pages", median(warm), BYTES);
        }
    }
}

/// From the loss of a pager to its machines being served again.
fn takeover() {
    let dir = tempfile::tempdir().unwrap();
    let reference = Reference::new(
        &dir.path().join("image"),
        16384,
        &[Layer::striped(Encoding::Packed, 16384, 3, 0, 0)],
    );
    let mut config = config(dir.path(), &reference.dir);
    config.limits.restarts = u32::MAX;
    let rig = Rig::start(config);
    let _guests: Vec<_> = (0..8)
        .map(|nth| rig.guest(&format!("vm-{nth}"), &reference))
        .collect();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        rig.signal_pager(rustix::process::Signal::KILL);
        times.push(rig.event(|event| match event {
            pager::Event::TookOver { took, .. } => Some(took),
            _ => None,
        }));
    }
    show(
        "takeover of 8 machines of 64 MiB in runs of 3 pages",
        median(times),
        0,
    );
}
