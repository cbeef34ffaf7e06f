//! Guest RAM inside a VMM's process: where it is mapped, which pages are its own, reading and writing them.
//!
//! Works on any process whose RAM is a mapping of a known memfd; needs the right to trace it (same user, or root).

mod mapping;
mod scan;
mod smaps;
mod source;
#[expect(unsafe_code, reason = "one ioctl that rustix does not offer")]
mod sys;
mod tables;

pub(crate) use mapping::{FileId, Mapping};
use scan::Which;
pub(crate) use scan::own_pages;
pub(crate) use smaps::{RamMapping, read_smaps};
pub(crate) use source::{FileSource, Overlay, ProcessMemory};
pub(crate) use tables::PageTables;
