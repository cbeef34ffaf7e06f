//! Machines, images and directories as the daemon would make them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memory::{Draft, How, Image, ImageId, ManifestFacts, NewDisk, Verified};

use super::subject::{Ask, Place, Subject};
use crate::{
    Captured, DiskFile, DiskFormat, Driver, LaunchPlan, LogFiles, MachineSpec, MemoryBackend,
    RamUse, RestorePlan, Vm, VmStatus, VmmError, Wake, disk,
};

/// For things that take milliseconds when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A scenario's surroundings.
pub struct Rig<'a> {
    /// Whose rig it is.
    pub subject: &'a dyn Subject,
    /// The driver that machines are made with.
    pub driver: Arc<dyn Driver>,
    dir: PathBuf,
    made: AtomicUsize,
}

/// A machine that runs.
pub struct Machine {
    /// Its handle.
    pub vm: Arc<dyn Vm>,
    /// Directory of its instance.
    pub dir: PathBuf,
    /// Its disk.
    pub chain: Vec<DiskFile>,
}

/// A machine in standby.
pub struct Saved {
    /// The image.
    pub image: Image,
    /// How it was captured.
    pub captured: Captured,
}

impl<'a> Rig<'a> {
    /// A rig with a directory and a driver of its own.
    pub async fn new(subject: &'a dyn Subject) -> Self {
        Self {
            subject,
            driver: subject.driver().await,
            dir: subject.guest().scratch(),
            made: AtomicUsize::new(0),
        }
    }

    /// The first standby of a fork holds what that has written, `most_pages` at most, and lies on the image below.
    pub fn expect_diff(&self, captured: &Captured, most_pages: u64) {
        let (layers, pages) = (captured.linked_layers, captured.new_pages);
        if self.subject.saves_all() {
            assert_eq!(layers, 0, "all of it was saved");
        } else {
            assert_eq!(layers, 1, "its standby is a diff");
            assert!(
                pages <= most_pages,
                "the diff has {pages} pages, more than {most_pages}"
            );
        }
    }

    /// A fresh instance directory.
    pub fn instance_dir(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("machine-{number}"));
        for name in ["run", "disk", "memory"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        dir
    }

    /// Boots a machine and waits for its guest.
    pub async fn launch(&self) -> Machine {
        self.start(self.launch_plan()).await
    }

    /// As [`Rig::launch`], with a plan of the caller's.
    pub async fn start(&self, plan: LaunchPlan) -> Machine {
        let (dir, chain) = (
            plan.run_dir.parent().unwrap().to_path_buf(),
            plan.disk.clone(),
        );
        let vm = self.driver.launch(plan).await.unwrap();
        self.subject.guest().first_contact(vm.as_ref()).await;
        Machine { vm, dir, chain }
    }

    /// A plan for a machine that boots, in a new directory.
    pub fn launch_plan(&self) -> LaunchPlan {
        let dir = self.instance_dir();
        let base = DiskFile {
            path: dir.join("disk/base"),
            format: DiskFormat::Raw,
        };
        self.subject.guest().make_base_disk(&base.path);
        let disk = self.new_top(vec![base], &dir);
        LaunchPlan {
            name: name_of(&dir),
            run_dir: dir.join("run"),
            machine: MachineSpec {
                vcpus: self.subject.guest().vcpus(),
                ram_bytes: self.subject.guest().ram_bytes(),
            },
            kernel: self.subject.guest().kernel(),
            root: self.subject.guest().root(),
            disk,
            logs: logs(&dir),
            nic: None,
        }
    }

    fn new_top(&self, below: Vec<DiskFile>, dir: &Path) -> Vec<DiskFile> {
        let format = self.driver.powers().disk;
        disk::extend_chain(
            format,
            below,
            dir.join("disk/top"),
            self.subject.guest().disk_bytes(),
        )
        .unwrap()
    }

    /// Pause, capture, quit, freeze the disk, finish.
    pub async fn standby(&self, machine: Machine) -> Saved {
        self.standby_at(machine, None).await
    }

    /// As [`Rig::standby`], with RAM compressed at this level of zstd.
    pub async fn standby_at(&self, machine: Machine, level: Option<i32>) -> Saved {
        machine.vm.pause().await.unwrap();
        let (mut draft, captured) = self.capture_at(&machine, level).await;
        machine.vm.quit().await.unwrap();
        self.add_disks(&mut draft, &machine, How::Move);
        Saved {
            image: finish(draft, &captured),
            captured,
        }
    }

    /// Captures a paused machine into a new draft of its own.
    pub async fn capture(&self, machine: &Machine) -> (Draft, Captured) {
        self.capture_at(machine, None).await
    }

    async fn capture_at(&self, machine: &Machine, level: Option<i32>) -> (Draft, Captured) {
        let id = ImageId::random().unwrap();
        let dir = machine.dir.join("memory").join(id.as_str());
        let mut draft = Draft::create(&dir, id, &Verified::default()).unwrap();
        if let Some(level) = level {
            draft.compress(level);
        }
        let captured = machine
            .vm
            .snapshots()
            .unwrap()
            .capture(&mut draft)
            .await
            .unwrap();
        (draft, captured)
    }

    /// Freezes the disk; the file on top goes into the image as `top` says.
    pub fn add_disks(&self, draft: &mut Draft, machine: &Machine, top: How) {
        let last = machine.chain.len() - 1;
        for (position, file) in machine.chain.iter().enumerate() {
            let how = if position == last { top } else { How::Link };
            let virtual_bytes = self.subject.guest().disk_bytes();
            let disk = NewDisk {
                source: file.path.clone(),
                format: file.format,
                virtual_bytes,
                how,
            };
            draft.add_disk(&disk).unwrap();
        }
    }

    /// A plan for a machine of its own from `image`, in a new directory.
    pub fn restore_plan(&self, image: &Image, ram: RamUse, wake: Wake) -> RestorePlan {
        let dir = self.instance_dir();
        let image_dir = dir.join("memory").join(image.manifest().image_id.as_str());
        let (own, _) = image.link_into(&image_dir).unwrap();
        let file = |(position, record): (usize, &memory::DiskRecord)| {
            let path = dir.join(format!("disk/below-{position}"));
            fs::hard_link(own.disk_path(position), &path).unwrap();
            DiskFile {
                path,
                format: record.format,
            }
        };
        let below: Vec<DiskFile> = image
            .manifest()
            .disks
            .iter()
            .enumerate()
            .map(file)
            .collect();
        RestorePlan {
            name: name_of(&dir),
            run_dir: dir.join("run"),
            image_dir,
            root: self.subject.guest().root(),
            disk: self.new_top(below, &dir),
            logs: logs(&dir),
            nic: None,
            ram,
            memory: MemoryBackend::File,
            wake,
        }
    }

    /// A running machine of its own from `image`.
    pub async fn restore(&self, image: &Image, ram: RamUse) -> Machine {
        let machine = self
            .try_restore(self.restore_plan(image, ram, Wake::Running))
            .await;
        machine.unwrap()
    }

    /// As `restore`, for a plan that may fail.
    pub async fn try_restore(&self, plan: RestorePlan) -> Result<Machine, VmmError> {
        let (dir, chain) = (
            plan.run_dir.parent().unwrap().to_path_buf(),
            plan.disk.clone(),
        );
        Ok(Machine {
            vm: self.driver.restore(plan).await?,
            dir,
            chain,
        })
    }

    /// Has the guest remember a word.
    pub async fn put(&self, machine: &Machine, place: Place, name: &str, word: &str) {
        let question = Ask::Put(place, name.to_owned(), word.to_owned());
        self.subject
            .guest()
            .ask(machine.vm.as_ref(), &question)
            .await;
    }

    /// The word that the guest remembers.
    pub async fn get(&self, machine: &Machine, place: Place, name: &str) -> String {
        self.subject
            .guest()
            .ask(machine.vm.as_ref(), &Ask::Get(place, name.to_owned()))
            .await
    }

    /// Fails if the machine does something else.
    pub async fn expect_status(&self, machine: &Machine, wanted: VmStatus) {
        assert_eq!(machine.vm.status().await.unwrap(), wanted);
    }
}

/// The image of a captured machine.
pub fn finish(draft: Draft, captured: &Captured) -> Image {
    let facts = ManifestFacts {
        machine: captured.machine.clone(),
        root_digest: "sha256:conformance".into(),
    };
    draft.finish(facts).unwrap()
}

fn logs(dir: &Path) -> LogFiles {
    LogFiles {
        vmm: dir.join("vmm.log"),
        console: dir.join("console.log"),
        app: dir.join("app.log"),
    }
}

/// Unique on the host, as names of instances are: suites run side by side, and control groups are named so.
fn name_of(dir: &Path) -> String {
    let parts: Vec<_> = dir.iter().rev().take(3).collect();
    let parts = parts.into_iter().rev().map(|part| part.to_string_lossy());
    parts.collect::<Vec<_>>().join("-").replace('.', "")
}
