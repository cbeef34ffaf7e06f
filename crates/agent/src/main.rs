//! `coppice-agent`, `/init` of every guest. Everything is in the library.

fn main() {
    agent::run();
}
