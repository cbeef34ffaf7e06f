//! What an instance's actor can be told, and how it answers.

use model::{
    Backend, BackendWish, Compression, ForkAsk, InstanceId, InstanceRecord, MemorySpec, Name,
    PolicyPatch, PostFork, Prefetch, Tags, Target,
};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

use super::OpError;
use super::pagers::HotOrder;
use super::warm::WarmFork;

/// Most requests that may wait for one instance; further ones are told to come back.
pub(super) const MAILBOX: usize = 64;

/// New entrypoint and cmd for a start; none = as they are.
#[derive(Debug, Clone, Default)]
pub struct StartOverrides {
    /// Replaces the entrypoint, for good.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the cmd, for good.
    pub cmd: Option<Vec<String>>,
}

impl StartOverrides {
    pub(super) fn any(&self) -> bool {
        self.entrypoint.is_some() || self.cmd.is_some()
    }
}

/// Changes to what holds for the memory of forks to come; none = as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ForkMemory {
    /// What it comes from.
    pub backend: Option<BackendWish>,
    /// What is done with their hot pages.
    pub prefetch: Option<Prefetch>,
}

impl ForkMemory {
    pub(super) fn applied_to(self, spec: MemorySpec) -> MemorySpec {
        MemorySpec {
            backend: self.backend.or(spec.backend),
            prefetch: self.prefetch.unwrap_or(spec.prefetch),
        }
    }
}

/// Changes to a record that touch no machine.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// New expiry; the inner none = never.
    pub expires_at: Option<Option<model::UnixMillis>>,
    /// New tags.
    pub tags: Option<Tags>,
    /// Environment of later starts, merged.
    pub env: BTreeMap<String, String>,
    /// What it may do on the network, at once.
    pub network: PolicyPatch,
    /// What holds for its forks to come.
    pub memory: ForkMemory,
}

/// A fork request, checked for form.
#[derive(Debug, Clone)]
pub struct ForkOrder {
    /// What the rules look at.
    pub ask: ForkAsk,
    /// Name of the fork, or prefix of their names.
    pub name: String,
    /// Environment to add.
    pub env: BTreeMap<String, String>,
    /// Replace the source's tags, if any are given.
    pub tags: Option<Tags>,
    /// Replaces the source's hook.
    pub post_fork: Option<PostFork>,
    /// Changes to what the source may do on the network.
    pub network: PolicyPatch,
    /// What their memory is to come from.
    pub memory_backend: Option<BackendWish>,
    /// The VMM that they are to have; the source's in any case.
    pub hypervisor: Option<String>,
    /// Whose spec the forks inherit, when that is not the memory's owner.
    pub heir_of: Option<Box<InstanceRecord>>,
}

/// A command to an actor.
#[derive(Debug)]
pub(super) enum Command {
    /// Make the disk and boot for the first time.
    Create,
    /// Boot.
    Start(StartOverrides),
    /// Power off.
    Stop,
    /// Write a memory image and end the VMM; the image as it was asked for, if it was.
    Standby(Option<Compression>),
    /// Wake.
    Restore,
    /// Mark as template.
    Promote(ForkMemory),
    /// Unmark.
    Demote,
    /// The fork request that promoted it is over.
    SettlePromotion {
        /// At least one of its forks came to life.
        lived: bool,
    },
    /// Record forks and hand their bytes over.
    Fork(Box<ForkOrder>),
    /// Be the fork that the record describes.
    BecomeFork(Box<Birth>),
    /// Change the record.
    Update(Patch),
    /// End the forks that were prepared ahead.
    DropWarm {
        /// Only if they have slots on the network.
        seated: bool,
    },
    /// Go away; politely if `graceful`.
    Delete {
        /// Ask the program to end first.
        graceful: bool,
    },
}

/// How a fork comes to life.
#[derive(Debug)]
pub(super) struct Birth {
    /// How its RAM uses the image; none = there is no memory, only a disk.
    pub ram: Option<hypervisor::RamUse>,
    /// What its RAM comes from, if there is any.
    pub backend: Backend,
    /// What it is to have of its template's hot pages, and to add to them.
    pub hot: Option<HotOrder>,
    /// Where it is brought.
    pub target: Target,
    /// The machine that was prepared for it.
    pub warm: Option<WarmFork>,
    /// How it came to own its memory image; a machine that was prepared knows that itself.
    pub owned: memory::Owned,
}

/// A fork that is recorded and owns its bytes, or why it could not be made.
pub(super) struct ForkSlot {
    /// Its name.
    pub name: Name,
    /// Its record and how it is born.
    pub made: Result<(InstanceRecord, Birth), OpError>,
}

/// The forks of one request, recorded.
pub(super) struct MadeForks {
    /// One for each, in order.
    pub slots: Vec<ForkSlot>,
    /// The source became a template by this.
    pub promoted: bool,
}

/// What an actor answers.
pub(super) enum Outcome {
    /// It is done, or was so already.
    Done,
    /// The forks to bring to life.
    Forks(MadeForks),
}

/// A command with the way back to whoever sent it.
pub(super) struct Envelope {
    /// What to do.
    pub command: Command,
    /// Where the answer goes; nobody may be listening any more.
    pub reply: oneshot::Sender<Result<Outcome, OpError>>,
}

/// What remains of an instance for the fork service: its id and its answer.
#[derive(Debug)]
pub struct ForkResult {
    /// The name that was asked for.
    pub name: Name,
    /// The fork, or why there is none.
    pub outcome: Result<InstanceId, OpError>,
}

impl Command {
    /// Whether it may follow a deletion that was begun and not finished.
    pub(super) fn fits_a_deletion(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::DropWarm { .. } => true,
            Self::Create
            | Self::Start(_)
            | Self::Stop
            | Self::Standby(_)
            | Self::Restore
            | Self::Promote(_)
            | Self::Demote
            | Self::SettlePromotion { .. }
            | Self::Fork(_)
            | Self::BecomeFork(_)
            | Self::Update(_) => false,
        }
    }

    /// The operation's name in logs and metrics.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Start(_) => "start",
            Self::Stop => "stop",
            Self::Standby(_) => "standby",
            Self::Restore => "restore",
            Self::Promote(_) => "promote",
            Self::Demote => "demote",
            Self::SettlePromotion { .. } => "settle-promotion",
            Self::Fork(_) => "fork",
            Self::BecomeFork(_) => "become-fork",
            Self::Update(_) => "update",
            Self::DropWarm { .. } => "drop-warm",
            Self::Delete { .. } => "delete",
        }
    }
}
