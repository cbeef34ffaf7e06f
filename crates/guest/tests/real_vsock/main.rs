//! The agent in a machine that is near to Firecracker's: started from the uncompressed kernel, ended by a reset, and
//! inside the agents' suite over AF_VSOCK.
//!
//! The program is three in one: the test on the host, the launcher of its machine, and, copied into the machine, what
//! runs there. Needs `COPPICE_ASSETS`, as `cargo xtask assets` makes it. Takes the arguments of the standard test
//! harness that runners use.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]
#![expect(
    dead_code,
    reason = "of the suite's modules only what runs over vsock is called here"
)]

/// Gathers the functions named, each to be run on an agent that is reached by vsock.
macro_rules! conformance {
    ($($name:ident)*) => {
        pub(crate) const ALL: &[(&str, crate::Check)] = &[
            $((concat!(module_path!(), "::", stringify!($name)), |target| Box::pin($name(target)))),*
        ];
    };
}

/// The same of those on sockets.
macro_rules! on_sockets {
    ($($name:ident)*) => { conformance! { $($name)* } };
}

#[path = "../agents/address.rs"]
mod address;
#[path = "../agents/commands.rs"]
mod commands;
#[path = "../agents/connections.rs"]
mod connections;
mod host;
#[path = "../agents/listening.rs"]
mod listening;
#[path = "../agents/support.rs"]
mod support;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;

use support::Target;

type Check = fn(Target) -> Pin<Box<dyn Future<Output = ()>>>;

/// First argument with which this program is the launcher, and with which it runs the suite where it is.
const LAUNCH: &str = "launch";
const INSIDE: &str = "inside";

const NAME: &str = "the_suite_passes_over_vsock_in_a_machine_like_firecrackers";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [first] if first == LAUNCH => return hypervisor::launch_main(),
        [first] if first == INSIDE => return inside(),
        _ => {}
    }
    let has = |option: &str| arguments.iter().any(|argument| argument == option);
    if has("--list") {
        if !has("--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut filters = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    if filters.peek().is_some() && !filters.any(|filter| NAME.contains(filter.as_str())) {
        return ExitCode::SUCCESS;
    }
    let Some(assets) = std::env::var_os("COPPICE_ASSETS").map(PathBuf::from) else {
        println!("skipped: COPPICE_ASSETS is not set, there is no guest");
        return ExitCode::SUCCESS;
    };
    let qemu = std::process::Command::new("qemu-system-x86_64")
        .arg("--version")
        .output();
    if qemu.is_err() {
        println!("skipped: qemu-system-x86_64 is not installed");
        return ExitCode::SUCCESS;
    }
    runtime().block_on(host::run(&assets));
    println!("{NAME} ... ok");
    ExitCode::SUCCESS
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().unwrap()
}

/// Runs what is about commands and connections over vsock; the rest of the suite is the same on every channel. That
/// there is no vsock is a failure here.
fn inside() -> ExitCode {
    let mut checks = [commands::ALL, connections::ALL, listening::ALL].concat();
    checks.push(("listening::strangers", |_| {
        Box::pin(listening::strangers_are_not_served())
    }));
    for (name, check) in checks {
        let passed = runtime().block_on(async {
            let Some(target) = Target::vsock() else {
                return false;
            };
            check(target).await;
            true
        });
        if !passed {
            return ExitCode::FAILURE;
        }
        println!("ok {name}");
    }
    ExitCode::SUCCESS
}
