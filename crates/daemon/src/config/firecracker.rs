//! The keys of Firecracker.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::Deserialize;

use super::{Given, program};

/// 4096 users from the beginning of a range that neither distributions, nor systemd, nor
/// subordinate ids hand out (systemd's table of user ids calls it unused).
const DEFAULT_UIDS: Range<u32> = 0x7000_0000..0x7000_1000;

/// Whether machines are jailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum JailMode {
    /// Where the daemon is root and finds the jailer.
    Auto,
    /// Always; no machines where that is not possible.
    On,
    /// Never: machines run as the daemon's user.
    Off,
}

/// How machines run on Firecracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirecrackerKeys {
    /// The program; none = from the PATH.
    pub program: Option<PathBuf>,
    /// Whether machines are jailed.
    pub jail: JailMode,
    /// The jailer; none = beside the program, or from the PATH.
    pub jailer: Option<PathBuf>,
    /// Users and groups of jailed machines.
    pub uids: Range<u32>,
    /// Control group files and values of each.
    pub cgroups: Vec<String>,
}

impl FirecrackerKeys {
    pub(super) fn of(given: &Given) -> Result<Self> {
        let cgroups = given.jail_cgroups.as_deref().unwrap_or_default();
        let cgroups: Vec<String> = cgroups
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(str::to_owned)
            .collect();
        for entry in &cgroups {
            ensure!(
                entry.split_once('=').is_some_and(|(file, value)| {
                    file.contains('.') && !file.contains('/') && !value.is_empty()
                }),
                "jail_cgroups {entry:?}: a limit is FILE=VALUE, such as memory.max=2G"
            );
        }
        Ok(Self {
            program: given.firecracker.clone().map(program).transpose()?,
            jail: given.jail.unwrap_or(JailMode::Auto),
            jailer: given.jailer.clone().map(program).transpose()?,
            uids: match given.jail_uids.as_deref() {
                Some(text) => uids(text).with_context(|| format!("jail_uids {text:?}"))?,
                None => DEFAULT_UIDS,
            },
            cgroups,
        })
    }
}

fn uids(text: &str) -> Result<Range<u32>> {
    let (first, last) = text
        .split_once('-')
        .context("a range is FIRST-LAST, such as 1879048192-1879052287")?;
    let (first, last): (u32, u32) = (first.trim().parse()?, last.trim().parse()?);
    ensure!(first > 0, "root must not be among them");
    // The last number stands for "no user" in system calls.
    ensure!(last < u32::MAX, "the largest number is no user");
    ensure!(first <= last, "the first is above the last");
    Ok(first..last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(uids: &str, cgroups: &str) -> Result<FirecrackerKeys> {
        FirecrackerKeys::of(&Given {
            jail_uids: Some(uids.to_owned()),
            jail_cgroups: Some(cgroups.to_owned()),
            ..Given::default()
        })
    }

    #[test]
    fn users_and_limits_are_read_or_refused_by_name() {
        let good = keys("100000-100999", "memory.max=2G, cpu.weight=50").unwrap();
        assert_eq!(good.uids, 100_000..101_000);
        assert_eq!(good.cgroups, ["memory.max=2G", "cpu.weight=50"]);
        assert_eq!(good.jail, JailMode::Auto);
        for bad in ["0-9", "9-8", "7", "a-b", "1-4294967295"] {
            let error = keys(bad, "").unwrap_err();
            assert!(format!("{error:#}").contains(bad), "{error:#}");
        }
        for bad in ["memory.max", "memory.max=", "../x.y=1", "procs=1"] {
            let error = keys("1-2", bad).unwrap_err();
            assert!(format!("{error:#}").contains(bad), "{error:#}");
        }
    }
}
