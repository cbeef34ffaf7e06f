//! Ingress: HTTP and HTTPS by host name.
//!
//! `connection` speaks with a client, `exchange` handles one request: `routes` says which rule is
//! meant, `reach` gets a connection to the guest (waking it if it must), and bodies stream both
//! ways. Whatever goes wrong becomes a `page`.

mod routes;

mod certificates;
mod tls;

mod body;
mod headers;
mod idle;
mod page;

mod pool;
mod reach;
mod wake;

mod connection;
mod exchange;
mod patience;
mod upgrade;

pub(crate) use certificates::Certificates;
pub(crate) use connection::serve;
pub(crate) use pool::Pool;
pub(crate) use routes::Routes;
pub(crate) use tls::TlsSettings;
pub(crate) use wake::Wakes;
