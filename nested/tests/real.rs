//! A real nested host, and what becomes of one that dies.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nested::{End, Host, Output};

const PATIENCE: Duration = Duration::from_secs(240);

/// What a shell says in a nested host; none where there is no such host.
fn run(script: &str) -> Option<Output> {
    let assets = std::env::var_os("COPPICE_ASSETS").map(PathBuf::from);
    let Some(Ok(host)) = assets.map(|assets| Host::open(&assets.join("nested"))) else {
        println!("skipped: there is no nested host among the assets");
        return None;
    };
    let arguments = ["-c", script].map(OsStr::new);
    let path = OsStr::new("/usr/sbin:/usr/bin:/sbin:/bin");
    let environment = [("PATH", path)];
    let shell = Path::new("/bin/sh");
    Some(
        host.run(shell, &arguments, &environment, PATIENCE)
            .expect("QEMU"),
    )
}

#[test]
fn a_program_says_what_it_says_and_ends_as_it_ends() {
    let mut runs = std::iter::repeat_with(|| run("test -e /dev/kvm && echo said; exit 7")).take(3);
    let lives = |run: &Option<Output>| {
        let end = run.as_ref().map(|output| output.end);
        end != Some(End::HostDied)
    };
    let Some(output) = runs.find(lives).expect("a host that lives") else {
        return;
    };
    assert_eq!(output.end, End::Exit(7), "{}", output.console);
    assert_eq!(output.text.trim(), "said");
}

/// Such a run says nothing about the program, and is done again by who wants to know.
#[test]
fn a_kernel_that_panics_is_not_the_programs_end() {
    let Some(output) = run("echo c > /proc/sysrq-trigger; sleep 1000") else {
        return;
    };
    assert_eq!(output.end, End::HostDied, "{}", output.console);
    assert!(
        output.console.contains("Kernel panic"),
        "{}",
        output.console
    );
}
