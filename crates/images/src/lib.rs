//! Container images on disk: import of OCI archives, OCI layouts and `docker save` archives into a
//! content-addressed store of read-only root disks.
//!
//! An archive is not trusted. Its digests are verified while it is read, its layers are unpacked by
//! code that cannot leave the directory it unpacks to, and [`Limits`] bound what it may cost.
//! Everything that is refused is refused by name.
//!
//! The store knows digests only. Which names and which instances mean a digest is left to the daemon.

mod config;
mod digest;
mod erofs;
mod error;
mod layer;
mod limits;
mod reference;
mod source;
mod store;

pub use config::{ImageConfig, Platform};
pub use digest::{Digest, DigestError};
pub use error::{ImportError, Refusal};
pub use limits::{Limit, Limits};
pub use reference::{Reference, ReferenceError};
pub use store::{ImageStore, Imported, Progress};
