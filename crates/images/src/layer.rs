//! Layers: from a compressed tar stream to files in a directory.
//!
//! `blob` decompresses and verifies, `record` reads tar entries, `path` judges their names, `apply`
//! gives each its meaning, and `tree` is the only one that touches the file system.

mod apply;
mod blob;
mod path;
mod record;
mod tree;

pub(crate) use apply::{Budget, apply};
pub(crate) use blob::{LayerBlob, check as check_digest};
pub(crate) use tree::Tree;
