//! What an instance costs its host.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /instances/{id}/stats`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceStats {
    /// Whose.
    pub instance_id: String,
    /// Its name.
    pub instance_name: String,
    /// Processor time of the VMM.
    pub cpu_seconds: f64,
    /// Resident memory of the VMM, shared pages included.
    pub memory_rss_bytes: u64,
    /// Address space of the VMM.
    pub memory_vms_bytes: u64,
    /// Bytes received, as the guest sees it.
    pub network_rx_bytes: u64,
    /// Bytes sent, as the guest sees it.
    pub network_tx_bytes: u64,
    /// Processors given to the guest.
    pub allocated_vcpus: u32,
    /// Memory given to the guest.
    pub allocated_memory_bytes: u64,
    /// Resident by allocated; absent when nothing is allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_utilization_ratio: Option<f64>,
    /// Whose pages they are; absent without a VMM. An extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStats>,
    /// What a template gives its forks; absent for others. An extension of
    /// coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateStats>,
    /// What the pager of its memory did for it; absent for others. An extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pager: Option<PagerStats>,
    /// What was done about hot pages for a fork that maps its memory; absent for others. An extension of coppice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hot_pages: Option<HotPagesStats>,
}

/// Whose pages a running instance uses, counted by the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryStats {
    /// Guest memory as configured.
    pub guest_ram_bytes: u64,
    /// Resident guest pages that are still the memory image's.
    pub shared_with_image_bytes: u64,
    /// Resident guest pages that are this instance's alone.
    pub private_bytes: u64,
    /// Pages of the VMM itself that are this process's alone.
    pub vmm_private_bytes: u64,
    /// Everything, each shared page divided by its number of users.
    pub pss_bytes: u64,
    /// Page faults of the VMM and of the guest's processors in it. What is mapped ahead causes none.
    #[serde(default)]
    pub page_faults: u64,
}

/// What sharing saves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TemplateStats {
    /// Forks with a VMM now.
    pub forks: u64,
    /// Bytes of the template's memory resident for all of them together.
    pub resident_bytes: u64,
    /// Bytes that copies for each fork would need beyond that.
    pub saved_bytes: u64,
    /// Forks that are prepared ahead, ready to be taken.
    #[serde(default)]
    pub warm_forks: u64,
    /// Bytes that are theirs alone.
    #[serde(default)]
    pub warm_private_bytes: u64,
    /// Forks whose first pages were recorded.
    #[serde(default)]
    pub hot_recordings: u32,
    /// Bytes that are known to be touched first, filled or mapped ahead in later forks.
    #[serde(default)]
    pub hot_bytes: u64,
}

/// What was done about hot pages for a fork that maps the memory of its template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HotPagesStats {
    /// What it touches is being recorded.
    pub recording: bool,
    /// Bytes of hot pages that were to be mapped ahead; 0 = none were known, or wanted, or worth it: they are in memory,
    /// and the fork was not prepared before it was asked for.
    pub hot_bytes: u64,
    /// Bytes of these that were mapped before it touched them. They stay shared.
    pub ahead_bytes: u64,
    /// How long that took, beside the start of the guest, in microseconds.
    pub ahead_us: u64,
}

/// What the pager did for an instance, since the instance got its memory from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PagerStats {
    /// Everything is filled: the pager is not needed any more, and the figures are the last ones.
    pub complete: bool,
    /// Page faults it answered.
    pub faults: u64,
    /// Bytes copied for them, neighbours included.
    pub copied_bytes: u64,
    /// Bytes of zeros filled for them.
    pub zeroed_bytes: u64,
    /// Bytes filled ahead of faults: hot pages, and what completes the memory.
    pub ahead_bytes: u64,
    /// Bytes the guest gave back.
    pub removed_bytes: u64,
    /// Pages that were there already when they were to be filled.
    pub already_present: u64,
    /// Times that filling had to wait.
    pub retries: u64,
    /// Pagers that were lost while they served it.
    pub takeovers: u64,
    /// What it touches is being recorded.
    pub recording: bool,
    /// Bytes of hot pages that it was given to fill ahead; 0 = none were known, or wanted.
    pub hot_bytes: u64,
    /// Half of all faults were answered in less, in microseconds.
    pub fault_p50_us: u64,
    /// 99 of 100 faults were answered in less, in microseconds.
    pub fault_p99_us: u64,
    /// Times from a fault to its answer, those buckets that have any.
    pub fault_latency: Vec<LatencyBucket>,
}

/// A bucket of a histogram of times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LatencyBucket {
    /// Times below this, and not below half of it, in microseconds; absent in the last bucket, which has all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below_us: Option<u64>,
    /// How many.
    pub count: u64,
}
