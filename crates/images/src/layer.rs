//! Layers: from a compressed tar stream to files in a directory.
//!
//! `blob` decompresses and verifies, `record` reads tar entries, `path` judges their names, `apply`
//! gives each its meaning, and `tree`, with `walk` and `attributes`,
//! is the only one that touches the file system.

mod apply;
mod attributes;
mod blob;
mod path;
mod record;
mod tree;
mod walk;

pub(crate) use apply::{Budget, apply};
pub(crate) use blob::{LayerBlob, check as check_digest};
pub(crate) use tree::Tree;
