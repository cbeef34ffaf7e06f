//! The program that runs as PID 1 in every guest: it sets the machine up, starts the image's
//! program, and answers the host over one virtio-serial port or connection of vsock.
//!
//! One thread and one epoll loop do everything: a sleeping guest costs no CPU, there is no lock,
//! and the memory of the agent is its buffers. What the loop does to the machine itself goes
//! through [`Machine`], so that the same server runs over a socket pair on the host in tests.

mod account;
mod boot;
mod children;
mod cmdline;
mod connection;
mod disks;
mod download;
mod enclosure;
mod environment;
mod exec;
mod freezer;
mod guest;
mod identity;
mod launch;
mod listener;
mod log;
mod machine;
mod modules;
mod network;
mod paths;
mod poller;
mod ports;
mod program;
mod root;
mod server;
mod session;
mod stat;
mod sys;
mod upload;

pub use boot::run;
pub use enclosure::Enclosure;
pub use listener::{Listener, Peers};
pub use log::Log;
pub use machine::{Machine, StandIn};
pub use server::{Channel, Reaping, Server};
