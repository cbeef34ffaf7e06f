//! What is said about the memory of forks.

use api::instances::{InstanceMemory, MemoryBackend, MemoryMode, Prefetch};
use model::{Backend, BackendWish, MemoryOrigin};

use crate::instances::ForkMemory;

/// Changes to what holds for the forks of an instance.
pub(crate) fn fork_memory(
    backend: Option<MemoryBackend>,
    prefetch: Option<Prefetch>,
) -> ForkMemory {
    ForkMemory {
        backend: backend.map(wish),
        prefetch: prefetch.map(|prefetch| match prefetch {
            Prefetch::On => model::Prefetch::On,
            Prefetch::Off => model::Prefetch::Off,
            Prefetch::Record => model::Prefetch::Record,
        }),
    }
}

pub(super) fn wish(backend: MemoryBackend) -> BackendWish {
    match backend {
        MemoryBackend::Auto => BackendWish::Auto,
        MemoryBackend::File => BackendWish::File,
        MemoryBackend::Uffd => BackendWish::Uffd,
    }
}

pub(super) fn origin(memory: MemoryOrigin) -> InstanceMemory {
    InstanceMemory {
        mode: match memory.mode {
            model::MemoryMode::Booted => MemoryMode::Booted,
            model::MemoryMode::Shared => MemoryMode::Shared,
            model::MemoryMode::Copied => MemoryMode::Copied,
        },
        image_id: memory.image_id.map(|id| id.to_string()),
    }
}

/// Records of earlier versions do not say; there were files only.
pub(super) fn backend(memory: &MemoryOrigin) -> Option<MemoryBackend> {
    memory.image_id.as_ref().map(|_| match memory.backend {
        None | Some(Backend::File) => MemoryBackend::File,
        Some(Backend::Uffd) => MemoryBackend::Uffd,
    })
}

pub(super) fn wished(wish: BackendWish) -> MemoryBackend {
    match wish {
        BackendWish::Auto => MemoryBackend::Auto,
        BackendWish::File => MemoryBackend::File,
        BackendWish::Uffd => MemoryBackend::Uffd,
    }
}

pub(super) fn prefetch(prefetch: model::Prefetch) -> Prefetch {
    match prefetch {
        model::Prefetch::On => Prefetch::On,
        model::Prefetch::Off => Prefetch::Off,
        model::Prefetch::Record => Prefetch::Record,
    }
}
