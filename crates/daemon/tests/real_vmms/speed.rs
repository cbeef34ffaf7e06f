//! Figures for `cargo xtask bench`, which judges them: one line of JSON, times in milliseconds.
//!
//! A fork as the API orders it, with everything the daemon does for one (records, directory, disk, operation log, the
//! agent's line), against the steps by hand with the same Firecracker. Measured in turn, so that a busy host slows both.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::{Image, Loader, PAGE_BYTES};
use model::InstanceId;
use serde_json::{Value, json};

use crate::bare::{ByHand, Load};
use crate::host::{Host, Vmm};
use crate::life::{Life, several};
use crate::probe::RAM_BYTES;

/// What prints figures, and runs only when it is named.
pub(crate) const MEASURE: &str = "measure";

/// What it needs.
pub(crate) const ON: &[Vmm] = &[Vmm::Firecracker];

/// From an order to the first answer of the guest, and until the order is carried out and recorded.
pub(crate) fn measure(mut host: Host, quick: bool) {
    // The saved machine of a person has no network card either.
    host.connected = false;
    let life = Life::begin(&host);
    let template = life.template("template", ON[0]);
    let image = image_of(&host, &template);
    let ram = unpacked(&image);
    let rounds = if quick { 13 } else { 26 };
    let (mut answers, mut whole, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches on both sides and does not count.
    for round in 0..=rounds {
        let began = Instant::now();
        let fork = life.forks(&template, &format!("fork-{round}"), several(1));
        let took = began.elapsed();
        let answered = life.answered_at(&fork[0]) - began;
        life.delete(fork);
        let hand = restore(&host, &image, ram.path());
        if round > 0 {
            answers.push(ms(answered));
            whole.push(ms(took));
            by_hand.push(ms(hand));
        }
    }
    life.delete([template]);
    life.end();
    let figures: Value = json!({ "answer": answers, "whole": whole, "by_hand": by_hand });
    println!("{figures}");
}

fn image_of(host: &Host, template: &InstanceId) -> Image {
    let record = host.records.instance(template).unwrap().record;
    let dir = host.layout.instance(template);
    Image::open(&dir.image(&record.standby.unwrap())).unwrap()
}

/// One file of RAM in memory.
fn unpacked(image: &Image) -> tempfile::NamedTempFile {
    let ram = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    ram.as_file().set_len(RAM_BYTES).unwrap();
    let loader = Loader::default();
    for layer in 0..image.manifest().layers.len() {
        let place =
            |first: u64, bytes: &[u8]| ram.as_file().write_all_at(bytes, first * PAGE_BYTES as u64);
        loader.read_layer(image, layer, place).unwrap();
    }
    ram
}

/// The same steps as a person would take them: a directory with a copy of the disk, the program, one request.
fn restore(host: &Host, image: &Image, ram: &Path) -> Duration {
    let dir: PathBuf = host.layout.instances().join("by-hand");
    let began = Instant::now();
    std::fs::create_dir(&dir).unwrap();
    memory::copy_sparse(&image.disk_path(0), &dir.join("disk")).unwrap();
    let mut vm = ByHand::run(&host.firecracker(), &host.root_disk(), dir.clone());
    let (status, answer) = vm.try_load(&Load {
        state: &image.state_path(),
        memory: ("File", ram),
        resume: true,
    });
    assert_eq!(status, 204, "{answer}");
    vm.ask("beats");
    let took = began.elapsed();
    drop(vm);
    std::fs::remove_dir_all(dir).unwrap();
    took
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
