//! What the fake server knows.

use std::collections::BTreeMap;

use api::images::{Image, ImageStatus};
use api::instances::{
    CompressionAlgorithm, ImageEncoding, Instance, InstanceMemory, InstanceNetwork, InstanceState,
    InstanceStats, MemoryBackend, MemoryImage, MemoryMode, MemoryStats, SnapshotCompression,
    SnapshotPolicy, TemplateStats,
};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

pub(crate) const MIB: u64 = 1 << 20;

/// An instance whose id repeats its name, so that both are easy to tell.
pub(crate) fn instance(name: &str, state: InstanceState) -> Instance {
    Instance {
        id: id(name),
        name: name.to_owned(),
        image: "docker.io/library/demo:latest".to_owned(),
        state,
        state_error: None,
        hypervisor: "qemu".to_owned(),
        platform: "linux/amd64".to_owned(),
        size: "256 MB".to_owned(),
        overlay_size: "10 GB".to_owned(),
        vcpus: 2,
        env: BTreeMap::from([("SECRET".to_owned(), "hunter2".to_owned())]),
        tags: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        network: InstanceNetwork::default(),
        volumes: Vec::new(),
        has_snapshot: matches!(state, InstanceState::Standby | InstanceState::Template),
        exit_code: None,
        exit_message: None,
        created_at: datetime!(2026-01-01 00:00 UTC),
        started_at: Some(datetime!(2026-01-01 00:00:01 UTC)),
        stopped_at: None,
        expires_at: None,
        current_phase: state.phase().to_owned(),
        current_phase_since: datetime!(2026-01-01 00:00:02 UTC),
        phase_durations_ms: BTreeMap::from([(state.phase().to_owned(), 1500)]),
        fork_count: 0,
        mem_locked: false,
        fork_of_template: None,
        memory: InstanceMemory {
            mode: MemoryMode::Booted,
            image_id: None,
        },
        memory_backend: None,
        fork_memory_backend: None,
        prefetch: None,
        snapshot_policy: None,
        memory_image: None,
    }
}

/// A template with so many forks.
pub(crate) fn template(name: &str, forks: u64) -> Instance {
    Instance {
        fork_count: forks,
        mem_locked: forks > 0,
        ..instance(name, InstanceState::Template)
    }
}

/// The same, with a memory image that is compressed, by its policy.
pub(crate) fn compressed(instance: Instance) -> Instance {
    let compression = SnapshotCompression {
        enabled: true,
        algorithm: Some(CompressionAlgorithm::Zstd),
        level: Some(3),
    };
    Instance {
        snapshot_policy: Some(SnapshotPolicy {
            compression: Some(compression),
            standby_compression_delay: None,
        }),
        memory_image: Some(MemoryImage {
            encoding: ImageEncoding::Mixed,
            layers: 2,
            memory_bytes: 96 * MIB,
            stored_bytes: 41 * MIB,
        }),
        ..instance
    }
}

/// A fork that shares the memory of a template.
pub(crate) fn fork_of(parent: &str, name: &str, state: InstanceState) -> Instance {
    Instance {
        fork_of_template: Some(id(parent)),
        memory: InstanceMemory {
            mode: MemoryMode::Shared,
            image_id: Some("m1".to_owned()),
        },
        memory_backend: Some(MemoryBackend::File),
        ..instance(name, state)
    }
}

/// The same, made a few minutes ago, for tables that show ages.
pub(crate) fn recent(instance: Instance) -> Instance {
    Instance {
        created_at: OffsetDateTime::now_utc() - Duration::minutes(5),
        ..instance
    }
}

pub(crate) fn id(name: &str) -> String {
    format!("{name}x{:0>1$}", "", 23 - name.len())
}

/// What a running instance costs; of a template only what it saves.
pub(crate) fn stats(
    instance: &Instance,
    private_mib: u64,
    saved_mib: Option<u64>,
) -> InstanceStats {
    let runs = instance.state == InstanceState::Running;
    InstanceStats {
        instance_id: instance.id.clone(),
        instance_name: instance.name.clone(),
        cpu_seconds: 1.25,
        memory_rss_bytes: 180 * MIB,
        memory_vms_bytes: 900 * MIB,
        network_rx_bytes: 0,
        network_tx_bytes: 0,
        allocated_vcpus: 2,
        allocated_memory_bytes: 256 * MIB,
        memory_utilization_ratio: Some(0.5),
        memory: runs.then_some(MemoryStats {
            guest_ram_bytes: 256 * MIB,
            shared_with_image_bytes: 120 * MIB,
            private_bytes: private_mib * MIB,
            vmm_private_bytes: 18 * MIB + MIB / 2,
            pss_bytes: 40 * MIB,
            page_faults: 900,
        }),
        template: saved_mib.map(|saved| TemplateStats {
            forks: instance.fork_count,
            resident_bytes: 120 * MIB,
            saved_bytes: saved * MIB,
            ..TemplateStats::default()
        }),
        pager: None,
        hot_pages: None,
    }
}

pub(crate) fn image(name: &str) -> Image {
    Image {
        name: format!("docker.io/library/{name}:latest"),
        digest: format!("sha256:{:0<64}", "ab12"),
        status: ImageStatus::Ready,
        created_at: OffsetDateTime::now_utc() - Duration::hours(3),
        platform: Some("linux/amd64".to_owned()),
        queue_position: None,
        error: None,
        size_bytes: Some(5 * MIB),
        entrypoint: None,
        cmd: None,
        env: None,
        working_dir: None,
        tags: BTreeMap::new(),
    }
}
