//! Tests on real guests, one file for each subject.

mod access;
mod chains;
mod cli;
mod cli_network;
mod compression;
mod copies;
mod crash;
mod exec;
mod fanout;
mod firecracker;
mod identity;
mod images;
mod locks;
mod network;
mod network_sleep;
mod program;
mod sdk;
mod table;
mod templates;
mod two_daemons;
mod unprivileged;
mod warm;
