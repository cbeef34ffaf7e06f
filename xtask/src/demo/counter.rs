//! A process in the guest whose state is in its memory alone: a shell that counts.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::cli::Cli;

/// The count is a variable of the shell, five steps a second; /dev/shm is memory too. SIGUSR1 makes it
/// leap. Nothing ever comes through the fifo: waiting for it is a sleep that starts no other process.
pub(super) const PROGRAM: &str = "mkfifo /dev/shm/never; exec 3<>/dev/shm/never >/dev/null 2>&1; \
trap \"leap=100000\" USR1; leap=0; i=0; \
while :; do i=$((i+1+leap)); leap=0; echo $i $$ > /dev/shm/count; read -t 0.2 n <&3; done";

/// What a leap adds. No counter gets there by itself in the time of a demo.
pub(super) const LEAP: u64 = 100_000;

/// Steps in a second, at most.
const RATE: u64 = 5;

/// For the next step, in a guest that shares a slow host with eight others.
const STEP_DEADLINE: Duration = Duration::from_secs(20);

/// Between two looks.
const TICK: Duration = Duration::from_millis(100);

/// Command that shows count and process number. A look between the shell's truncation and its write
/// finds nothing and is repeated.
pub(super) const READ: &str = "c=; while [ -z \"$c\" ]; do c=$(cat /dev/shm/count); done; echo $c";

/// What is seen of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counter {
    /// The count.
    pub(super) count: u64,
    /// The shell's process number.
    pub(super) pid: u32,
}

impl Counter {
    /// Reads what [`READ`] printed.
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (count, pid) = text
            .trim()
            .split_once(' ')
            .with_context(|| format!("no counter runs: {text:?}"))?;
        Ok(Self {
            count: count.parse().context("count")?,
            pid: pid.parse().context("process number of the counter")?,
        })
    }

    /// Looks at the counter of a machine.
    pub(super) async fn of(cli: &Cli<'_>, machine: &str) -> anyhow::Result<Self> {
        Self::parse(
            &cli.quiet(&["exec", machine, "--", "sh", "-c", READ])
                .await?,
        )
    }

    /// Waits until the counter of a machine is beyond `count`.
    pub(super) async fn beyond(cli: &Cli<'_>, machine: &str, count: u64) -> anyhow::Result<Self> {
        let deadline = Instant::now() + STEP_DEADLINE;
        loop {
            let counter = Self::of(cli, machine).await?;
            if counter.count > count {
                return Ok(counter);
            }
            if Instant::now() > deadline {
                bail!("the counter of {machine} stands still at {}", counter.count);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Whether this can be the counter that was `earlier` so long ago: the same process, no step back, and no
    /// more steps than there was time for.
    pub(super) fn continues(self, earlier: Self, ago: Duration) -> bool {
        let most = earlier.count + RATE * (ago.as_secs() + 2);
        self.pid == earlier.pid && (earlier.count..=most).contains(&self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_counter_a_little_later_continues() {
        let earlier = Counter { count: 50, pid: 7 };
        let at = |count, pid| Counter { count, pid };
        let ago = Duration::from_secs(1);
        assert!(at(50, 7).continues(earlier, ago));
        assert!(at(55, 7).continues(earlier, ago));
        for other in [at(49, 7), at(1, 7), at(55, 8), at(50_000, 7)] {
            assert!(!other.continues(earlier, ago), "{other:?}");
        }
    }
}
