//! What a daemon and a pager say to each other, as JSON in frames.
//!
//! A pager outlives its daemon, so a newer daemon must understand an older pager: messages only gain optional
//! fields within a version, and a pager of another version is told apart by its first answer.

use serde::{Deserialize, Serialize};

use crate::hot::{HotPages, Mark};
use crate::stats::VmStats;

/// Version of this protocol.
pub(crate) const PROTOCOL: u32 = 1;

/// A request with the number that its reply repeats.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) number: u64,
    pub(crate) request: Request,
}

/// Daemon to pager.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Who is there? Events are sent from now on.
    Hello,
    /// Are you alive?
    Ping,
    /// Serve this machine. Descriptors: its userfaultfd, its handshake connection, its page state.
    Register(Registration),
    /// Give me what you were given for this machine.
    Adopt { vm: String },
    /// What have you done for each machine?
    Stats,
    /// The guest has come this far.
    Mark { vm: String, mark: Mark },
    /// Fill these pages ahead of faults.
    Prefetch { vm: String, hot_pages: HotPages },
    /// Complete the machine at this rate and let it go.
    Graduate { vm: String, bytes_per_second: u64 },
    /// Take no more machines, and end with the last one.
    Drain,
}

/// A machine to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    pub(crate) vm: String,
    /// The VMM's message as it came.
    pub(crate) handshake: String,
    /// Filled ahead of faults.
    pub(crate) hot_pages: Option<HotPages>,
    /// Whether to record what is touched.
    pub(crate) record: bool,
    /// Pagers before this one.
    pub(crate) takeovers: u64,
    /// Rate in bytes per second at which the machine is to be completed, if it is.
    pub(crate) graduate: Option<u64>,
}

/// Pager to daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromPager {
    Reply { number: u64, reply: Reply },
    Event(PagerEvent),
}

/// Answer to a request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    Hello(Hello),
    Done,
    Stats(Vec<NamedStats>),
    /// Answers a mark, with the recording if that ended it.
    Recorded(Option<HotPages>),
    /// Descriptors as with [`Request::Register`].
    Adopted(Registration),
    Refused {
        reason: String,
    },
}

/// Who a pager is and what it serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) pid: i32,
    pub(crate) image_id: String,
    pub(crate) draining: bool,
    pub(crate) vms: Vec<Served>,
}

/// A machine that a pager serves, or has given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) vm: String,
    pub(crate) failed: Option<String>,
}

/// Counters of one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedStats {
    /// The machine's name.
    pub vm: String,
    /// Its counters.
    pub stats: VmStats,
}

/// What a pager says unasked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PagerEvent {
    /// The machine must be killed. It hangs or ends by a signal where its memory is in doubt.
    Failed { vm: String, reason: String },
    /// The machine's process has ended.
    Gone(NamedStats),
    /// The machine is complete and needs no pager.
    Graduated(NamedStats),
}
