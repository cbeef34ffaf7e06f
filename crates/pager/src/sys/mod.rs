//! System calls that the standard library and rustix do not offer safely.

#[cfg(feature = "fake")]
pub(crate) mod guest;
mod harden;
mod map;
mod peer;
mod uffd;

pub(crate) use harden::{become_user, close_inherited, leave_network};
pub(crate) use map::{Bytes, FileMap, SharedWords};
pub(crate) use peer::peer_pidfd;
pub(crate) use uffd::{
    Filled, MESSAGE_WORDS, Message, Stop, UFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_POISON,
    UFFDIO_COPY, UFFDIO_POISON, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_ZEROPAGE, Uffd,
};
