//! The socket between the daemon and the edge.

mod client;
mod events;
mod frame;
mod message;
mod server;

pub use client::{ApplyError, Client, ClientError, DirectoryError, Pending, Resolutions};
pub use message::{CertificateState, Hello, PROTOCOL_VERSION, Resolved, ResolvedAddress, Status};
pub(crate) use server::{open, serve};
