//! Talking to the probe guest.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use hypervisor::conformance::{Ask, Guest, Place};
use hypervisor::{GuestStream, KernelFiles, Nic, Vm};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

use crate::network::Network;
use crate::scratch::Scratch;

/// For anything the guest is asked; it boots in 10 to 100 ms on an idle host.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const RAM_BYTES: u64 = 128 << 20;
pub(crate) const DISK_BYTES: u64 = 16 << 20;

/// First page that the guest has no other use for.
pub(crate) const FREE_PAGE: u64 = 4096;

/// Pages from there on that a settled guest has filled.
pub(crate) const BALLAST_PAGES: u64 = 1024;

/// Pages from there on that a big guest has filled: 64 MiB.
pub(crate) const BIG_PAGES: u64 = 16 << 10;

/// Pages that one of two processors works on before it leaves as many to the other. It is half of what a pager gives at
/// once, so they meet at some faults and are apart at others.
const TURN: u64 = 8;

/// The probe guest as the guest of the suite: the files that machines are made of, and where the tests' own go.
pub(crate) struct Probe {
    pub(crate) assets: PathBuf,
    pub(crate) scratch: Scratch,
    pub(crate) vcpus: u32,
    /// Made when it is asked for.
    network: OnceLock<Option<Network>>,
}

impl Probe {
    /// With machines of so many processors.
    pub(crate) fn new(assets: &Path, vcpus: u32) -> Self {
        let scratch = Scratch::new();
        // The guest has no use for them, but VMMs want a root disk and an initrd.
        for name in ["root", "initrd"] {
            std::fs::write(scratch.path().join(name), [0; 1 << 16]).unwrap();
        }
        Self {
            assets: assets.to_path_buf(),
            scratch,
            vcpus,
            network: OnceLock::new(),
        }
    }
}

#[async_trait]
impl Guest for Probe {
    fn scratch(&self) -> PathBuf {
        self.scratch.next()
    }

    fn kernel(&self) -> KernelFiles {
        KernelFiles {
            kernel: self.assets.join("probe.elf"),
            initrd: self.scratch.path().join("initrd"),
            cmdline_extra: String::new(),
        }
    }

    fn root(&self) -> PathBuf {
        self.scratch.path().join("root")
    }

    fn vcpus(&self) -> u32 {
        self.vcpus
    }

    fn ram_bytes(&self) -> u64 {
        RAM_BYTES
    }

    fn disk_bytes(&self) -> u64 {
        DISK_BYTES
    }

    fn make_base_disk(&self, path: &Path) {
        make_disk(path);
    }

    async fn first_contact(&self, vm: &dyn Vm) {
        settle(vm, self.vcpus).await;
    }

    async fn ask(&self, vm: &dyn Vm, question: &Ask) -> String {
        ask(vm, self.vcpus, question).await
    }

    fn nic(&self) -> Option<Nic> {
        let network = self.network.get_or_init(Network::make);
        network.as_ref().map(Network::nic)
    }

    /// A fork that answers a few commands writes some 20 pages.
    fn most_diff_bytes(&self) -> u64 {
        1 << 20
    }
}

pub(crate) fn make_disk(path: &Path) {
    let file = std::fs::File::create_new(path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
}

/// One line to the guest, one line back.
pub(crate) async fn line(vm: &dyn Vm, command: &str) -> String {
    let asked = async {
        let stream = vm.dial(DEADLINE).await.unwrap();
        line_on(&mut BufReader::new(stream), command).await
    };
    timeout(DEADLINE, asked)
        .await
        .unwrap_or_else(|_| panic!("no answer to {command}"))
}

pub(crate) async fn line_on(stream: &mut BufReader<GuestStream>, command: &str) -> String {
    stream
        .write_all(format!("{command}\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).await.unwrap();
    assert!(answer.ends_with('\n'), "{command}: cut off at {answer:?}");
    answer.trim_end().to_owned()
}

pub(crate) async fn number(vm: &dyn Vm, command: &str) -> u64 {
    line(vm, command).await.parse().unwrap()
}

/// Waits for a booted guest, and gives it as much memory as a small real one has: an image of a few pages only would
/// rather be written anew than linked. From then on all its processors share in what it does with pages.
pub(crate) async fn settle(vm: &dyn Vm, vcpus: u32) {
    if vcpus > 1 {
        line(vm, &format!("turns {TURN}")).await;
    }
    line(vm, &format!("tag {FREE_PAGE} {BALLAST_PAGES} 1")).await;
}

/// Puts a question of the suite. All processors of the guest take part in being asked.
pub(crate) async fn ask(vm: &dyn Vm, vcpus: u32, question: &Ask) -> String {
    let place = |place: &Place| match place {
        Place::Ram => "ram",
        Place::Disk => "disk",
    };
    if vcpus > 1 {
        let command = format!("wrong {FREE_PAGE} {} 1", 2 * TURN);
        assert_eq!(line(vm, &command).await, "0", "not both have answered");
    }
    match question {
        Ask::Put(at, name, word) => line(vm, &format!("put {} {name} {word}", place(at))).await,
        Ask::Get(at, name) => line(vm, &format!("get {} {name}", place(at))).await,
        Ask::PowerOff => {
            let mut stream = vm.dial(DEADLINE).await.unwrap();
            stream.write_all(b"off\n").await.unwrap();
            String::new()
        }
    }
}
