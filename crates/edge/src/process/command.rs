//! The edge's entry point.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Place;
use crate::run::{RunError, RunOptions, run};

/// The daemon's first argument that means: be the edge. Then come the edge's directory and the
/// name of the build.
pub const EDGE_COMMAND: &str = "__edge";

/// Runs an edge until it is told to end, with the arguments after [`EDGE_COMMAND`].
#[must_use]
pub fn main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (Some(directory), build) = (arguments.next(), arguments.next()) else {
        complain("usage: DIRECTORY BUILD; the daemon starts the edge, people do not");
        return ExitCode::FAILURE;
    };
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    // Away from the daemon's terminal and process group. Fails only for the leader of a group,
    // who is there already.
    let _ = rustix::process::setsid();
    let options = RunOptions {
        place: Place::at(PathBuf::from(directory)),
        build: build.unwrap_or_default().to_string_lossy().into_owned(),
        wait_for_directory: true,
        ingress_threads: ingress_threads(),
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            let causes: Vec<_> = std::iter::successors(error.source(), |error| error.source())
                .map(|cause| format!(": {cause}"))
                .collect();
            complain(&format!("{error}{}", causes.concat()));
            ExitCode::FAILURE
        }
    }
}

/// One for each two processors: guests need the others (decision 0035).
fn ingress_threads() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    // Half of one, rounded up, is one.
    NonZeroUsize::new(processors.get().div_ceil(2)).unwrap_or(NonZeroUsize::MIN)
}

fn serve(options: RunOptions) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(run(options))
}

#[expect(clippy::print_stderr, reason = "read by whoever started it")]
fn complain(line: &str) {
    eprintln!("edge: {line}");
}
