//! Names: instances for everybody who may know them, the rest of the world for guests whose egress
//! allows it.
//!
//! `policy` decides from the question, who asks and the directory; `forwarded` asks the resolvers
//! of the host and takes out of their answers what must not be in them; `reporter` has the daemon
//! allow the addresses before a guest with an allow-list learns them.

mod inflight;
mod policy;
mod ranges;

mod forwarded;
mod reporter;
mod upstream;

mod responder;
mod sockets;

pub use reporter::ACK_DEADLINE;
pub(crate) use reporter::{Question, Reporter, Subscription};
pub(crate) use sockets::{serve_tcp, serve_udp};
pub(crate) use upstream::Upstreams;
