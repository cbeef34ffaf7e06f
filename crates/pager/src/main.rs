//! `coppice-pager`: serves the RAM of one memory image. Started by a daemon, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    pager::main(std::env::args_os().skip(1))
}
