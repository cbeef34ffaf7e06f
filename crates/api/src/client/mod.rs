//! A typed client of the contract.
//!
//! One [`Client`] speaks to one server over TCP or a unix socket. Calls that
//! the server answers at once end after a minute; calls that take as long as
//! the work they ask for have no limit, and are ended by dropping them.

mod address;

mod error;

mod call;

mod retry;

mod server;

mod ingresses;
mod instances;

mod images;

mod logs;

mod socket;

mod exec;

mod copy;

pub use address::Address;
pub use call::Client;
pub use copy::{Download, DownloadEvent, Upload};
pub use error::ClientError;
pub use exec::{ExecEvent, ExecInput, ExecOutput, ExecSession};
pub use logs::LogStream;
