//! `doctor`, `setup`, `token`: done by the daemon's own program, which knows
//! its data directory and its secret. This process becomes that one.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use crate::args::{DaemonArgs, GlobalArgs};
use crate::failure::Failure;

const PROGRAM: &str = "coppiced";

/// Returns only when that could not be done.
pub(crate) fn become_daemon(subcommand: &str, args: &DaemonArgs, global: &GlobalArgs) -> Failure {
    let program = beside_us().unwrap_or_else(|| PathBuf::from(PROGRAM));
    let error = Command::new(&program)
        .arg(subcommand)
        .args(&args.args)
        .args(json_flag(args, global))
        .exec();
    if error.kind() == io::ErrorKind::NotFound {
        return Failure::plain(format!(
            "`{subcommand}` is done by {PROGRAM}, which is neither beside this program nor in PATH"
        ))
        .hint("run it on the host of the daemon, where coppiced is installed");
    }
    Failure::local(format!("cannot run {}", program.display()), error)
}

fn beside_us() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name(PROGRAM);
    path.is_file().then_some(path)
}

/// `--json` before the subcommand is ours to pass on.
fn json_flag(args: &DaemonArgs, global: &GlobalArgs) -> Option<OsString> {
    let flag = OsString::from("--json");
    (global.json && !args.args.contains(&flag)).then_some(flag)
}
