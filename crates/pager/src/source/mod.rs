//! Bytes of an image, each chunk checked before its first byte is used.

mod cache;
mod files;

use memory::ImageError;

use crate::layout::Extent;
use crate::sys::Bytes;

pub(crate) use files::LayerFiles;

/// Where the bytes of pages come from.
pub(crate) trait Source {
    /// The first pages of `extent`, at least one of them and whole ones only.
    fn read(&mut self, extent: Extent) -> Result<Bytes<'_>, ImageError>;

    /// All pages of `extent` into `buffer`, which has their size.
    fn read_into(&mut self, extent: Extent, buffer: &mut [u8]) -> Result<(), ImageError>;
}
