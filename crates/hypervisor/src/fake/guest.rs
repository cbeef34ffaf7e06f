//! What a test gives as the guest.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::machine::Condition;
use crate::{DiskFile, GuestStream, Nic};

/// Software of a fake machine. All its state must be in what `save` returns; whatever else it remembers would be
/// shared by forks.
#[async_trait]
pub trait FakeGuest: Send + Sync {
    /// Plays the agent on a connection, until the host ends it. Dropped when the machine ends.
    async fn serve(&self, stream: GuestStream);
    /// What `serve` said has been passed on to the host. The moment to power off for a guest that has last words.
    fn heard(&self) {}
    /// The contents of RAM.
    fn save(&self) -> Vec<u8>;
    /// Continues from contents of RAM, as the first thing it is asked after being made.
    fn load(&self, ram: &[u8]);
}

/// Makes the guest of each machine.
pub trait GuestMaker: Send + Sync {
    /// A guest on `hardware` that has just booted.
    fn make(&self, hardware: FakeHardware) -> Arc<dyn FakeGuest>;
}

impl<F: Fn(FakeHardware) -> Arc<dyn FakeGuest> + Send + Sync> GuestMaker for F {
    fn make(&self, hardware: FakeHardware) -> Arc<dyn FakeGuest> {
        self(hardware)
    }
}

/// The machine as its guest sees it.
#[derive(Debug, Clone)]
pub struct FakeHardware {
    /// Instance id.
    pub name: String,
    /// Size of RAM.
    pub ram_bytes: u64,
    /// Disk chain; the guest may write to the last file as it likes.
    pub disk: Vec<DiskFile>,
    /// Where the guest's program logs to.
    pub app_log: PathBuf,
    /// Its network card.
    pub nic: Option<Nic>,
    /// Turns the machine off.
    pub power: PowerSwitch,
}

/// Lets a guest power off.
#[derive(Debug, Clone)]
pub struct PowerSwitch {
    pub(super) condition: watch::Sender<Condition>,
}

impl PowerSwitch {
    /// Powers the machine off; its VMM stays.
    pub fn off(&self) {
        self.condition.send_if_modified(|condition| {
            let on = matches!(condition, Condition::Running | Condition::Paused);
            if on {
                *condition = Condition::Shutdown;
            }
            on
        });
    }
}
