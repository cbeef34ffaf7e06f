//! Memory as the kernel counts it.

use std::fs;

use anyhow::Context;

/// What a process has to itself.
pub(super) struct Private {
    /// Unique set size, bytes: what would be free if the process were gone.
    pub(super) uss: u64,
    /// Pages of guest RAM that the guest has written, bytes.
    pub(super) guest: u64,
}

/// Looks at a VMM.
pub(super) fn private(pid: i32) -> anyhow::Result<Private> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("smaps_rollup")?;
    let uss = kib(&rollup, "Private_Clean:") + kib(&rollup, "Private_Dirty:");
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).context("smaps")?;
    Ok(Private {
        uss,
        guest: anonymous_of(&smaps, "/memfd:coppice-ram"),
    })
}

/// Memory that the host could give to new programs, bytes.
pub(super) fn available() -> anyhow::Result<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").context("meminfo")?;
    Ok(kib(&meminfo, "MemAvailable:"))
}

/// Anonymous bytes of all mappings whose file begins with `file`.
fn anonymous_of(smaps: &str, file: &str) -> u64 {
    let mut within = false;
    let mut sum = 0;
    for line in smaps.lines() {
        // Heads of mappings begin with an address range, their figures with a name and a colon.
        let first = line.split_whitespace().next().unwrap_or_default();
        if !first.ends_with(':') {
            within = line.contains(file);
        } else if within {
            sum += kib(line, "Anonymous:");
        }
    }
    sum
}

/// The figure after `name`, in bytes.
fn kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_right_mappings() {
        let smaps = "7f00-7f10 rw-p 00000000 00:01 12 /memfd:coppice-ram-ab (deleted)\n\
                     Rss: 40 kB\nAnonymous: 8 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0\nAnonymous: 100 kB\n\
                     7f40-7f50 rw-p 00000000 00:01 12 /memfd:coppice-ram-ab (deleted)\nAnonymous: 4 kB\n";
        assert_eq!(anonymous_of(smaps, "/memfd:coppice-ram"), 12 << 10);
    }
}
