//! A network in memory, for tests of the layers above.
//!
//! It keeps the same books as the real one, its objects outlive it in a [`FakeHost`], and the host can be told to
//! refuse or to have a port in use. Packets are not moved: [`FakeNetwork::passes`] tells what the rules would say.

mod host;
mod network;
mod reach;

pub use host::FakeHost;
pub use network::FakeNetwork;
