//! The program `coppice` against a fake server that speaks the wire types.

mod cli;

mod fixtures;

mod server;

mod copies;

mod errors;

mod execs;

mod help;

mod images;

mod ingress;

mod life;

mod lists;

mod logs;

mod network;
