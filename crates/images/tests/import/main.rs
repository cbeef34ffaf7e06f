//! Imports of whole archives that are made in the test, compared with what is then on the root disk.
//!
//! Importing needs root and erofs-utils; without them these tests say so and pass.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod archive;
mod disk;
mod formats;
mod hostile;
mod layers;
mod noise;
mod store;
