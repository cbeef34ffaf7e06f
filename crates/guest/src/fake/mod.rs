//! An agent in memory, for tests of those who talk to agents.
//!
//! It keeps to the same rules as the real one (phases, credit, sessions that end with their
//! connection, commands that stand still while it is frozen) and passes the same conformance suite. Instead of a machine it has a small tree of
//! files and a handful of commands; all of its state can be saved and loaded, so a fake VMM can put
//! it into a memory image and fork it.
//!
//! Commands: `true`, `false`, `exit N`, `echo WORDS…`, `cat [PATHS…]`, `sleep SECONDS`, `zeros
//! COUNT`, `hostname`, `env`, `counter` (adds one to a number kept in the state and prints it),
//! `grow PATH` (makes a file longer, for ever), `random` (16 bytes in hex that follow from all entropy received), `write PATH TEXT…`, `read
//! PATH`. A path given to `cat` that does not exist is told on standard error. A post-fork command
//! is one of these as well.

mod agent;
mod commands;
mod connection;
mod files;
mod sessions;
mod state;
mod writer;

pub use agent::FakeAgent;
