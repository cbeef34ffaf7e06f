//! How forks come by their memory, as the configuration has it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use model::{BackendWish, ByteSize};
use serde::Deserialize;

use crate::instances::PagerPolicy;

use super::Given;

/// A fork that has lived for ten minutes is no passing job: it is worth its memory.
const DEFAULT_GRADUATE_AFTER: Duration = Duration::from_secs(600);
/// Completes 1 GiB in 16 s with a few percent of a core.
const DEFAULT_GRADUATE_RATE: ByteSize = ByteSize::mib(64);
/// A pager starts in some 20 ms; jobs that fork one machine after the other need not pay that each time.
const LINGER: Duration = Duration::from_secs(10);

/// What a guest touches later than that is its work, and other for each fork.
const RECORD_FOR: Duration = Duration::from_secs(10);

/// A guest that stands still for longer is of no use when it goes on.
const MAX_TAKEOVER: Duration = Duration::from_secs(60);

/// User and group of pagers that root starts, the first behind those of jailed machines: nothing else hands it out.
const DEFAULT_UID: u32 = 0x7000_1000;

/// What the memory of forks comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum MemoryBackend {
    /// What fits the memory image.
    Auto,
    /// Files.
    File,
    /// A pager, where the VMM can.
    Uffd,
}

/// How forks come by their memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PagerConfig {
    /// When, and for how long.
    pub policy: PagerPolicy,
    /// Who pagers run as.
    pub uid: Option<u32>,
    /// How they serve.
    pub settings: pager::Settings,
    /// How long things may take.
    pub limits: pager::Limits,
}

impl PagerConfig {
    pub(super) fn of(given: &Given) -> Result<Self> {
        let after = match given.graduate_after.as_deref() {
            Some(text) => {
                model::parse_duration(text).with_context(|| format!("graduate_after {text:?}"))?
            }
            None => DEFAULT_GRADUATE_AFTER,
        };
        let rate: ByteSize = match given.graduate_rate.as_deref() {
            Some(text) => text
                .parse()
                .with_context(|| format!("graduate_rate {text:?}"))?,
            None => DEFAULT_GRADUATE_RATE,
        };
        if rate.bytes() == 0 {
            bail!(
                "graduate_rate is 0, so nothing would ever be complete; give graduate_after 0s to never complete machines"
            );
        }
        let mut settings = pager::Settings::default();
        if let Some(text) = given.pager_batch.as_deref() {
            let wrong = || format!("pager_batch {text:?}");
            settings.batch_bytes = text.parse::<ByteSize>().with_context(wrong)?.bytes();
            settings
                .check()
                .map_err(anyhow::Error::msg)
                .with_context(wrong)?;
        }
        let mut limits = pager::Limits::default();
        if let Some(text) = given.pager_takeover.as_deref() {
            limits.takeover = takeover(text).with_context(|| format!("pager_takeover {text:?}"))?;
        }
        Ok(Self {
            settings,
            limits,
            policy: PagerPolicy {
                backend: match given.memory_backend {
                    None | Some(MemoryBackend::Auto) => BackendWish::Auto,
                    Some(MemoryBackend::File) => BackendWish::File,
                    Some(MemoryBackend::Uffd) => BackendWish::Uffd,
                },
                graduate_after: (!after.is_zero()).then_some(after),
                graduate_rate: rate.bytes(),
                linger: LINGER,
                record_for: RECORD_FOR,
            },
            uid: given.pager_uid.or_else(own_user),
        })
    }
}

fn takeover(text: &str) -> Result<Duration> {
    let limit = model::parse_duration(text)?;
    if limit.is_zero() || limit > MAX_TAKEOVER {
        bail!(
            "machines cannot wait for another pager for so long; give more than 0s and at most 1m"
        );
    }
    Ok(limit)
}

/// The user of pagers where nobody names one. Only root can become another, and in a container only one that exists
/// there.
fn own_user() -> Option<u32> {
    let exists =
        |map| std::fs::read_to_string(map).is_ok_and(|map: String| maps(&map, DEFAULT_UID));
    let can = rustix::process::geteuid().is_root()
        && exists("/proc/self/uid_map")
        && exists("/proc/self/gid_map");
    can.then_some(DEFAULT_UID)
}

/// Whether a user namespace with this map (lines of `first inside, first outside, count`) has the number.
fn maps(map: &str, number: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.nth(1)) {
            (Some(Ok(first)), Some(Ok(count))) => {
                (first..first.saturating_add(count)).contains(&number.into())
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pagers_of_root_are_not_root() {
        let of = |pager_uid| {
            let given = Given {
                pager_uid,
                ..Given::default()
            };
            PagerConfig::of(&given).unwrap().uid
        };
        assert_eq!(of(Some(0)), Some(0), "who says so gets it");
        assert_eq!(of(Some(7)), Some(7));
        if !rustix::process::geteuid().is_root() {
            assert_eq!(of(None), None);
        }
        let host = "         0          0 4294967295\n";
        assert!(maps(host, DEFAULT_UID));
        let container = "0 1000 1\n1 100000 65536\n";
        assert!(!maps(container, DEFAULT_UID) && maps(container, 65536));
        assert!(!maps("", 0) && !maps("nonsense\n0 0", 0));
    }

    #[test]
    fn what_a_fault_brings_is_a_power_of_two() {
        let of = |text: &str| {
            let given = Given {
                pager_batch: Some(text.to_owned()),
                ..Given::default()
            };
            PagerConfig::of(&given).map(|config| config.settings.batch_bytes)
        };
        assert_eq!(of("4KB").unwrap(), 4 << 10);
        assert_eq!(of("2MB").unwrap(), 2 << 20);
        for wrong in ["3KB", "48KB", "4MB", "much"] {
            let error = of(wrong).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn machines_wait_for_another_pager_as_long_as_it_is_said() {
        let of = |text: Option<&str>| {
            let given = Given {
                pager_takeover: text.map(str::to_owned),
                ..Given::default()
            };
            PagerConfig::of(&given).map(|config| config.limits.takeover)
        };
        assert_eq!(of(None).unwrap(), Duration::from_secs(1));
        assert_eq!(of(Some("250ms")).unwrap(), Duration::from_millis(250));
        for wrong in ["0s", "61s", "soon"] {
            let error = of(Some(wrong)).unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn machines_are_completed_unless_the_configuration_says_never() {
        let default = PagerConfig::of(&Given::default()).unwrap().policy;
        assert_eq!(default.backend, BackendWish::Auto);
        assert_eq!(default.graduate_after, Some(DEFAULT_GRADUATE_AFTER));
        let never = Given {
            graduate_after: Some("0s".to_owned()),
            memory_backend: Some(MemoryBackend::Uffd),
            graduate_rate: Some("8MB".to_owned()),
            ..Given::default()
        };
        let never = PagerConfig::of(&never).unwrap().policy;
        assert_eq!(never.graduate_after, None);
        assert_eq!(never.backend, BackendWish::Uffd);
        assert_eq!(never.graduate_rate, 8 << 20);
        let stuck = Given {
            graduate_rate: Some("0MB".to_owned()),
            ..Given::default()
        };
        assert!(PagerConfig::of(&stuck).is_err());
    }
}
