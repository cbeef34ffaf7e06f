//! What the driver rests on, shown with Firecracker alone: another version may do it in another way.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use hypervisor::conformance::Rig;
use memory::{PAGE_BYTES, Run};
use serde_json::json;

use crate::by_hand::{Balloon, ByHand, Load, new_dir};
use crate::firecracker::Firecracker;
use crate::probe::{BALLAST_PAGES, FREE_PAGE, RAM_BYTES};

/// Pages that guest and devices write while a few commands are answered.
const AROUND: u64 = 64;

fn extents(path: &Path) -> Vec<Run> {
    memory::data_runs(fs::File::open(path).unwrap()).unwrap()
}

fn pages(runs: &[Run]) -> u64 {
    runs.iter().map(|run| run.count).sum()
}

fn holds(runs: &[Run], page: u64) -> bool {
    runs.iter()
        .any(|run| (run.first..run.end()).contains(&page))
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// The first diff holds the pages the guest has touched and is as good as all of RAM, the next one those it has touched
/// since; laid over each other they are the machine. A full one has every page.
pub(crate) async fn diffs_are_sparse_and_complete(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let mut vm = ByHand::boot(&rig, subject, Balloon::Absent);
    vm.ask(&format!("tag {FREE_PAGE} {BALLAST_PAGES} 1"));
    let beats = vm.number("beats");
    vm.set("Paused");
    let (_, first) = vm.save("Diff", "first");
    let runs = extents(&first);
    let ballast = FREE_PAGE..FREE_PAGE + BALLAST_PAGES;
    assert!(ballast.clone().all(|page| holds(&runs, page)), "{runs:?}");
    assert!(pages(&runs) < BALLAST_PAGES + AROUND, "{runs:?}");
    assert!(allocated(&first) < RAM_BYTES / 8);
    let (_, full) = vm.save("Full", "full");
    assert_eq!(fs::metadata(&full).unwrap().len(), RAM_BYTES);
    assert!(allocated(&full) >= RAM_BYTES, "a full one has no holes");
    vm.set("Resumed");
    vm.ask(&format!("tag {} 200 2", FREE_PAGE + 100));
    vm.set("Paused");
    let (state, second) = vm.save("Diff", "second");
    let runs = extents(&second);
    assert!(
        (100..300).all(|nth| holds(&runs, FREE_PAGE + nth)),
        "{runs:?}"
    );
    assert!(pages(&runs) < 200 + AROUND, "{runs:?}");

    let ram = fs::File::options().write(true).open(&first).unwrap();
    let diff = fs::File::open(&second).unwrap();
    for run in &runs {
        let mut bytes = vec![0; run.count as usize * PAGE_BYTES];
        let offset = run.first * PAGE_BYTES as u64;
        diff.read_exact_at(&mut bytes, offset).unwrap();
        ram.write_all_at(&bytes, offset).unwrap();
    }
    let load = Load {
        state: &state,
        memory: ("File", &first),
        resume: true,
    };
    let mut again = ByHand::load(&rig, subject, &vm.dir.join("disk"), &load);
    assert!(again.number("beats") > beats);
    for (from, count, seed) in [(0, 100, 1), (100, 200, 2), (300, BALLAST_PAGES - 300, 1)] {
        let line = format!("wrong {} {count} {seed}", FREE_PAGE + from);
        assert_eq!(again.number(&line), 0, "{line}");
    }
    // Port 0x64: the end that a guest asks for.
    again.ask("off");
    assert_eq!(again.ended().code(), Some(0));
}

/// A disk may be exchanged between load and resume.
pub(crate) async fn disks_are_exchanged_before_a_resume(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let mut vm = ByHand::boot(&rig, subject, Balloon::Absent);
    vm.ask("put disk who golden");
    vm.set("Paused");
    let (state, ram) = vm.save("Diff", "saved");
    let golden = vm.dir.join("disk");
    let load = Load {
        state: &state,
        memory: ("File", &ram),
        resume: false,
    };
    for name in ["one", "two"] {
        let mut fork = ByHand::load(&rig, subject, &golden, &load);
        let disk = fork.dir.join(name);
        memory::copy_sparse(&golden, &disk).unwrap();
        let body = json!({ "drive_id": "disk", "path_on_host": disk });
        let (status, answer) = fork.call("PATCH", "/drives/disk", &body);
        assert_eq!(status, 204, "{answer}");
        fork.set("Resumed");
        assert_eq!(fork.ask("get disk who"), "golden");
        fork.ask(&format!("put disk who {name}"));
        assert_eq!(fork.ask("get disk who"), name);
        drop(fork);
        let bytes = fs::read(&disk).unwrap();
        assert!(
            bytes
                .windows(name.len())
                .any(|part| part == name.as_bytes())
        );
    }
    vm.set("Resumed");
    assert_eq!(vm.ask("get disk who"), "golden");
}

/// A load that fails ends the process, and says why.
pub(crate) async fn damaged_files_end_the_process(subject: &Firecracker) {
    let rig = Rig::new(subject).await;
    let mut vm = ByHand::boot(&rig, subject, Balloon::Absent);
    vm.set("Paused");
    let (state, ram) = vm.save("Diff", "saved");
    let damage = |from: &Path, change: &dyn Fn(&fs::File)| {
        let copy = new_dir(&rig).join("copy");
        memory::copy_sparse(from, &copy).unwrap();
        let options = fs::File::options().read(true).write(true).open(&copy);
        change(&options.unwrap());
        copy
    };
    let flip = |file: &fs::File| {
        let middle = file.metadata().unwrap().len() / 2;
        let mut byte = [0];
        file.read_exact_at(&mut byte, middle).unwrap();
        file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    };
    let cut = |file: &fs::File| file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let cases = [
        (damage(&state, &flip), ram.clone(), "crc"),
        (damage(&state, &cut), ram.clone(), ""),
        (state.clone(), damage(&ram, &cut), ""),
    ];
    for (state, ram, wanted) in cases {
        let dir = new_dir(&rig);
        memory::copy_sparse(&vm.dir.join("disk"), &dir.join("disk")).unwrap();
        let mut fork = ByHand::start(subject, dir);
        let (status, answer) = fork.try_load(&Load {
            state: &state,
            memory: ("File", &ram),
            resume: true,
        });
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_lowercase().contains(wanted), "{answer}");
        assert_eq!(fork.ended().code(), Some(1));
    }
}
