//! Tests that need a KVM which runs Linux: here if this host has it, else in a nested host.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{End, Host};

/// What `cargo xtask test` tells tests, and what they find in it.
const ASSETS_VARIABLE: &str = "COPPICE_ASSETS";
/// `tcg` if this host's KVM runs no Linux.
const ACCELERATOR_VARIABLE: &str = "COPPICE_TEST_ACCELERATOR";
/// What a test keeps of its environment in a nested host.
const KEPT: [&str; 4] = [ASSETS_VARIABLE, "COPPICE_BIN_DIR", "HOME", "RUST_BACKTRACE"];

/// One test, several of which take some tens of seconds each in a nested host on two cores that others use too.
const LIMIT: Duration = Duration::from_secs(540);

/// Hosts for one test, of which all but the last have died.
const HOSTS: usize = 3;

/// Where a test is to be done.
#[derive(Debug, Clone)]
pub enum Where {
    /// In this process.
    Here,
    /// In a nested host.
    In(Host),
    /// Nowhere, for this reason.
    Nowhere(String),
}

impl Where {
    /// Decides for a host whose `/dev/kvm` may or may not run Linux: `why_not` says why it does not.
    #[must_use]
    pub fn decide(why_not: Option<String>) -> Self {
        let Some(why_not) = why_not else {
            return Self::Here;
        };
        let assets = std::env::var_os(ASSETS_VARIABLE).map(PathBuf::from);
        match assets.map(|assets| Host::open(&assets.join("nested"))) {
            Some(Ok(host)) => Self::In(host),
            Some(Err(no_host)) => Self::Nowhere(format!("{why_not}; {no_host}")),
            None => Self::Nowhere(why_not),
        }
    }
}

/// Runs the test program at `program` in a nested host as it is run here, and prints what it said. A host that died
/// under it is told of, and another one takes its place.
///
/// # Panics
/// When it fails, as the test itself would.
pub fn program(host: &Host, program: &Path, arguments: &[&OsStr]) {
    let kept = KEPT.map(|name| (name, std::env::var_os(name)));
    let path = OsString::from("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let mut environment: Vec<(&str, &OsStr)> = vec![
        ("PATH", &path),
        ("TMPDIR", OsStr::new("/run/tmp")),
        (ACCELERATOR_VARIABLE, OsStr::new("auto")),
    ];
    let kept = kept
        .iter()
        .filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    environment.extend(kept);
    let began = Instant::now();
    for left in (0..HOSTS).rev() {
        let limit = LIMIT.saturating_sub(began.elapsed());
        let output = match host.run(program, arguments, &environment, limit) {
            Ok(output) => output,
            Err(error) => panic!("the nested host cannot be started: {error}"),
        };
        print!("{}", output.text);
        if output.end == End::HostDied && left > 0 {
            println!("the nested host died:\n{}", output.console);
            continue;
        }
        assert_eq!(
            output.end,
            End::Exit(0),
            "the test failed in the nested host, which said:\n{}",
            output.console
        );
        return;
    }
}
