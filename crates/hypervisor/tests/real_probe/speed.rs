//! Figures for `cargo xtask bench`, which judges them: one line of JSON, times in milliseconds, sizes in KiB.
//!
//! What is compared is measured in turn, so that a busy host slows both sides.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use hypervisor::conformance::{Machine, Rig, Saved};
use hypervisor::{RamUse, Wake};
use memory::{
    Draft, Encoding, How, Image, ImageId, Loader, ManifestFacts, NewDisk, PAGE_BYTES, Verified,
};
use pager::{HotPages, Mark, Settings, VmStats};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::by_hand::{ByHand, Load, new_dir};
use crate::extra::{paged_with, tag, wrong};
use crate::firecracker::Firecracker;
use crate::mapped;
use crate::paged::RamFile;
use crate::pagers::Paged;
use crate::probe::{self, RAM_BYTES};
use crate::qemu::Qemu;

/// Machines whose memory is weighed.
const FORKS: usize = 4;

/// Pages that a guest works through: 16 MiB.
pub(crate) const WORK_PAGES: u64 = 4096;

/// Everything that is measured on a real Firecracker.
pub(crate) async fn measure(subject: &Firecracker, qemu: Option<&Qemu>) {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let rig = Rig::new(subject).await;
    let saved = {
        let machine = rig.launch().await;
        tag(&machine, 0, WORK_PAGES, 1).await;
        rig.standby(machine).await
    };
    let templates = rig.driver.templates().unwrap();
    let _hold = templates.hold(saved.image.dir()).await;
    let compressed = compressed(&rig, &saved.image);
    let restores = restores(&rig, subject, &saved, if quick { 26 } else { 39 }).await;
    let mut ways = Ways::start(&rig, &saved.image, &compressed).await;
    let rounds = if quick { 3 } else { 9 };
    ways.measure(&rig, rounds).await;
    let figures = json!({
        "restore": restores,
        "verify": ways.figures(),
        "mapped": {
            "firecracker": mapped::measure(subject, rounds).await,
            "qemu": match qemu {
                Some(qemu) => mapped::measure(qemu, rounds).await,
                None => Value::Null,
            },
        },
        "pss_kib": {
            "file": pss(&rig, &Memory::File(&saved.image)).await,
            "uffd": pss(&rig, &Memory::Pager(&ways.ways[2].1)).await,
        },
    });
    println!("{figures}");
}

/// From nothing to the first answer of the guest, by the driver and by hand with the same program.
async fn restores(rig: &Rig<'_>, subject: &Firecracker, saved: &Saved, rounds: usize) -> Value {
    let unpacked = Unpacked::of(&saved.image);
    let (mut driver, mut by_hand) = (Vec::new(), Vec::new());
    // The first round warms caches on both sides and does not count.
    for round in 0..=rounds {
        let plan = rig.restore_plan(&saved.image, RamUse::Fork, Wake::Running);
        between_ticks(round);
        let began = Instant::now();
        let fork = rig.try_restore(plan).await.unwrap();
        probe::line(fork.vm.as_ref(), "beats").await;
        let took = began.elapsed();
        fork.vm.kill().await.unwrap();
        // What the driver makes ready for the next one is not to take its time from the steps by hand.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let hand = unpacked.restore(rig, subject, round);
        if round > 0 {
            driver.push(ms(took));
            by_hand.push(ms(hand));
        }
    }
    json!({ "driver": driver, "by_hand": by_hand })
}

/// Lets some of a timer tick of the host pass, another part in each round.
///
/// KVM waits for the kernel's grace periods while a machine is made, and these end with ticks; so does the end of the
/// machine before. What begins right after a tick takes whole ticks, and half a millisecond more may cost one of them.
fn between_ticks(round: usize) {
    /// Distributions have 250 of them in a second.
    const TICK: Duration = Duration::from_millis(4);
    const STEPS: usize = 13;
    std::thread::sleep(TICK.mul_f64((round * 5 % STEPS) as f64 / STEPS as f64));
}

/// One file of RAM in memory, for the steps of a restore as a person would take them.
struct Unpacked {
    ram: tempfile::NamedTempFile,
    image: Image,
}

impl Unpacked {
    fn of(image: &Image) -> Self {
        let ram = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        ram.as_file().set_len(RAM_BYTES).unwrap();
        let loader = Loader::default();
        for layer in 0..image.manifest().layers.len() {
            let place = |first: u64, bytes: &[u8]| {
                ram.as_file().write_all_at(bytes, first * PAGE_BYTES as u64)
            };
            loader.read_layer(image, layer, place).unwrap();
        }
        let image = Image::open(image.dir()).unwrap();
        Self { ram, image }
    }

    /// From nothing to the first answer. The copy of the disk is made before, as it is for the driver; links, log and
    /// sockets are made in the time that counts, on both sides.
    fn restore(&self, rig: &Rig<'_>, subject: &Firecracker, round: usize) -> Duration {
        let dir = new_dir(rig);
        memory::copy_sparse(&self.image.disk_path(0), &dir.join("disk")).unwrap();
        between_ticks(round);
        let began = Instant::now();
        let mut vm = ByHand::start(subject, dir);
        let (status, answer) = vm.try_load(&Load {
            state: &self.image.state_path(),
            memory: ("File", self.ram.path()),
            resume: true,
        });
        assert_eq!(status, 204, "{answer}");
        vm.ask("beats");
        began.elapsed()
    }
}

/// The same image with its RAM compressed.
fn compressed(rig: &Rig<'_>, image: &Image) -> Image {
    let ram = Unpacked::of(image).ram;
    let dir = rig.instance_dir().join("image");
    let mut draft = Draft::create(&dir, ImageId::random().unwrap(), &Verified::default()).unwrap();
    let source = RamFile::of(ram.path());
    draft
        .write_layer_as(Encoding::Zstd, RAM_BYTES, &source)
        .unwrap();
    std::fs::copy(image.state_path(), draft.state_path()).unwrap();
    for (position, disk) in image.manifest().disks.iter().enumerate() {
        let disk = NewDisk {
            source: image.disk_path(position),
            format: disk.format,
            virtual_bytes: disk.virtual_bytes,
            how: How::Copy,
        };
        draft.add_disk(&disk).unwrap();
    }
    let facts = ManifestFacts {
        machine: image.manifest().machine.clone(),
        root_digest: "sha256:bench".into(),
    };
    draft.finish(facts).unwrap()
}

/// Where a fork's memory comes from.
enum Memory<'a> {
    File(&'a Image),
    Pager(&'a Way),
}

/// A pager with its settings, and what its forks took.
struct Way {
    paged: Paged,
    image: Image,
    hot: Option<HotPages>,
    verify: Vec<f64>,
    whole: Vec<f64>,
    stats: VmStats,
}

impl Way {
    async fn start(rig: &Rig<'_>, image: &Image, batch_bytes: u64) -> Self {
        let settings = Settings {
            batch_bytes,
            ..Settings::default()
        };
        Self {
            paged: Paged::start_with(rig, image, settings).await,
            image: Image::open(image.dir()).unwrap(),
            hot: None,
            verify: Vec::new(),
            whole: Vec::new(),
            stats: VmStats::default(),
        }
    }

    async fn fork(&self, rig: &Rig<'_>, name: &str, record: bool) -> Machine {
        let (socket, attached) = self.paged.await_vm(name, self.hot.clone(), record);
        let plan = paged_with(rig, &self.image, &socket);
        let fork = rig.try_restore(plan).await.unwrap();
        attached.await.unwrap();
        fork
    }

    /// Records what a fork touches that works through its pages.
    async fn record(&mut self, rig: &Rig<'_>) {
        let fork = self.fork(rig, "recorded", true).await;
        assert_eq!(wrong(&fork, 0, WORK_PAGES, 1).await, 0);
        let supervisor = std::sync::Arc::clone(&self.paged.supervisor);
        let marked = spawn_blocking(move || supervisor.mark("recorded", Mark::FirstExec).unwrap());
        self.hot = marked.await.unwrap();
        assert!(self.hot.is_some(), "nothing was recorded");
        fork.vm.kill().await.unwrap();
    }

    async fn measure(&mut self, rig: &Rig<'_>, name: &str) {
        let began = Instant::now();
        let fork = self.fork(rig, name, false).await;
        self.verify.push(work(&fork).await);
        self.whole.push(ms(began.elapsed()));
        self.stats = self.paged.stats(name).await;
        fork.vm.kill().await.unwrap();
    }
}

/// Has the guest read 16 MiB and look at every byte.
pub(crate) async fn work(fork: &Machine) -> f64 {
    let began = Instant::now();
    assert_eq!(wrong(fork, 0, WORK_PAGES, 1).await, 0);
    ms(began.elapsed())
}

/// All ways of giving a fork its memory.
struct Ways<'a> {
    image: &'a Image,
    file: (Vec<f64>, Vec<f64>),
    ways: Vec<(&'static str, Way)>,
}

impl<'a> Ways<'a> {
    async fn start(rig: &Rig<'_>, image: &'a Image, compressed: &Image) -> Self {
        let mut ways = Vec::new();
        for (name, image, batch) in [
            ("uffd_4k", image, 4 << 10),
            ("uffd_2m", image, 2 << 20),
            ("uffd_64k", image, 64 << 10),
            ("hot", image, 64 << 10),
            ("uffd_4k_hot", image, 4 << 10),
            ("uffd_2m_hot", image, 2 << 20),
            ("compressed", compressed, 64 << 10),
            ("compressed_hot", compressed, 64 << 10),
        ] {
            let mut way = Way::start(rig, image, batch).await;
            if name.ends_with("hot") {
                way.record(rig).await;
            }
            ways.push((name, way));
        }
        Self {
            image,
            file: (Vec::new(), Vec::new()),
            ways,
        }
    }

    async fn measure(&mut self, rig: &Rig<'_>, rounds: usize) {
        // The first round has the pagers read and check their images, and does not count.
        for round in 0..=rounds {
            let began = Instant::now();
            let fork = rig.restore(self.image, RamUse::Fork).await;
            self.file.0.push(work(&fork).await);
            self.file.1.push(ms(began.elapsed()));
            fork.vm.kill().await.unwrap();
            for (name, way) in &mut self.ways {
                way.measure(rig, &format!("{name}-{round}")).await;
            }
        }
    }

    fn figures(&self) -> Value {
        let mut figures = json!({
            "file": { "verify": self.file.0[1..], "whole": self.file.1[1..] },
        });
        for (name, way) in &self.ways {
            let latency = &way.stats.latency;
            figures[name] = json!({
                "verify": way.verify[1..],
                "whole": way.whole[1..],
                "faults": way.stats.faults,
                "p50_us": latency.quantile_us(0.5),
                "p99_us": latency.quantile_us(0.99),
            });
        }
        figures
    }
}

/// Proportional set size of each of several forks that have worked through their pages, KiB.
async fn pss(rig: &Rig<'_>, memory: &Memory<'_>) -> Vec<u64> {
    let mut forks = Vec::new();
    for nth in 0..FORKS {
        let fork = match memory {
            Memory::File(image) => rig.restore(image, RamUse::Fork).await,
            Memory::Pager(way) => way.fork(rig, &format!("weighed-{nth}"), false).await,
        };
        work(&fork).await;
        // A guest that polls takes a processor.
        fork.vm.pause().await.unwrap();
        forks.push(fork);
    }
    let mut sizes = Vec::new();
    for fork in &forks {
        let memory = fork.vm.memory().unwrap().report().await.unwrap();
        sizes.push(memory.pss_bytes >> 10);
    }
    for fork in forks {
        fork.vm.kill().await.unwrap();
    }
    sizes
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
