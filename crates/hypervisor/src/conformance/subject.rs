//! What a driver's tests have to bring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Driver, KernelFiles, Nic, Vm};

/// A driver, with a guest to test it with.
#[async_trait]
pub trait Subject: Send + Sync {
    /// A new driver on the same host, as after a restart of the daemon; shares no cache with earlier ones.
    async fn driver(&self) -> Arc<dyn Driver>;

    /// A driver whose identity differs from that of [`Subject::driver`], and the manifest field that does.
    async fn other_driver(&self) -> (Arc<dyn Driver>, &'static str);

    /// What runs in its machines.
    fn guest(&self) -> &dyn Guest;

    /// Whether this host makes it save all memory of a fork in each standby.
    fn saves_all(&self) -> bool {
        false
    }
}

/// A guest, with all that a host has for its machines. It is the same for all VMMs that run it.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Directory for the files of one scenario; removed with the guest.
    fn scratch(&self) -> PathBuf;

    /// What machines boot.
    fn kernel(&self) -> KernelFiles;

    /// The root file system image.
    fn root(&self) -> PathBuf;

    /// Number of a machine's processors.
    fn vcpus(&self) -> u32 {
        1
    }

    /// Size of a machine's RAM in bytes.
    fn ram_bytes(&self) -> u64;

    /// Size of a machine's disk in bytes.
    fn disk_bytes(&self) -> u64;

    /// Makes a formatted disk at `path`.
    fn make_base_disk(&self, path: &Path);

    /// Waits until a booted guest answers.
    async fn first_contact(&self, vm: &dyn Vm);

    /// Puts a question to the guest, which answers within a deadline of its own.
    async fn ask(&self, vm: &dyn Vm, question: &Ask) -> String;

    /// A place in a network for one machine at a time, and the same one each time. `None` where none can
    /// be made.
    fn nic(&self) -> Option<Nic>;

    /// Most bytes of RAM that the standby of a hardly used fork may write.
    fn most_diff_bytes(&self) -> u64;
}

/// A question for the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Remember a word under a name; the answer is empty.
    Put(Place, String, String),
    /// The word under a name; empty if there is none.
    Get(Place, String),
    /// Power off, after answering anything.
    PowerOff,
}

/// Where a guest remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In memory.
    Ram,
    /// On its disk, safely.
    Disk,
}
