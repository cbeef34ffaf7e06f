//! Memory images: write-once directories that hold a guest's RAM, its device state and its frozen disk.
//!
//! A [`Draft`] is an image being written; finishing it yields an [`Image`].
//! A [`Loader`] turns the RAM layers of an image into one sealed memfd that any number of forks map privately.
//! This crate knows no VMM and no instance; all of its calls block, so callers run them off their event loop.

mod error;
mod id;
mod names;

mod runs;
mod sparse;

mod digest;
mod verified;

mod index;
mod layer;
mod manifest;
mod reader;

mod compare;
mod draft;
mod image;
mod loader;
mod ram;

pub use draft::{Draft, How, ManifestFacts, NewDisk};
pub use error::ImageError;
pub use id::{ImageId, LayerId, ParseIdError};
pub use image::{Image, Owned, StoredRam, link_or_copy};
pub use index::Encoding;
pub use layer::{LayerStats, PageSource};
pub use loader::{LoadedRam, Loader, RamKey};
pub use manifest::{
    DiskFormat, DiskRecord, FORMAT_VERSION, LayerRecord, MachineFacts, Manifest, NicFacts,
    RootRecord, StateRecord, VmmFacts,
};
pub use ram::{OwnRam, data_runs};
pub use reader::LayerReader;
pub use runs::{PAGE_BYTES, Run, merge_runs, page_count};
pub use sparse::{CopyMethod, copy_sparse};
pub use verified::Verified;
