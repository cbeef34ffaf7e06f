//! The records: what holds whatever is asked in whatever order.

mod golden;
mod images;
mod locks;
mod rows;

use model::{
    ByteSize, InstanceId, InstanceRecord, InstanceSpec, MemoryOrigin, PhaseClock, State, UnixMillis,
};

use super::{ImageRecord, Store};

pub(super) const DIGEST: &str = "sha256:aa";

/// A store in a directory of its own, with one image.
pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("coppice.db")).unwrap();
    store.put_image(&image(), &["image".to_owned()]).unwrap();
    (dir, store)
}

pub(super) fn image() -> ImageRecord {
    image_of(DIGEST)
}

pub(super) fn image_of(digest: &str) -> ImageRecord {
    ImageRecord {
        digest: digest.to_owned(),
        platform: "linux/amd64".to_owned(),
        size_bytes: 1,
        rootfs_sha256: String::new(),
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: String::new(),
        user: String::new(),
        stop_signal: String::new(),
        labels: Default::default(),
        created_at: UnixMillis(0),
    }
}

pub(super) fn id(number: u8) -> InstanceId {
    InstanceId::from_entropy([number; 16])
}

pub(crate) fn record(number: u8, name: &str, parent: Option<InstanceId>) -> InstanceRecord {
    InstanceRecord {
        id: id(number),
        name: name.parse().unwrap(),
        spec: InstanceSpec {
            image: "image".to_owned(),
            image_digest: DIGEST.to_owned(),
            platform: "linux/amd64".to_owned(),
            hypervisor: "qemu".to_owned(),
            size: ByteSize::mib(256),
            overlay_size: ByteSize::gib(1),
            vcpus: 1,
            env: Default::default(),
            tags: Default::default(),
            entrypoint: None,
            cmd: None,
            post_fork: None,
            network: Default::default(),
            memory: Default::default(),
            snapshots: Default::default(),
        },
        parent,
        template: false,
        promoting: false,
        standby: None,
        base: None,
        memory: MemoryOrigin::booted(),
        lease: None,
        intent: None,
        exit: None,
        created_at: UnixMillis(1),
        started_at: None,
        stopped_at: None,
        expires_at: None,
        phases: PhaseClock::new(State::Stopped, UnixMillis(1)),
    }
}
