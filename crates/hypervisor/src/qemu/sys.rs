//! The host's time stamp counter.

use std::time::{Duration, Instant};

/// Long enough for an error below 0.01 %, short enough to do at every start of the daemon.
const SAMPLE: Duration = Duration::from_millis(20);

/// Frequency of the time stamp counter in kHz. Blocks for [`SAMPLE`].
pub(super) fn tsc_khz() -> u64 {
    let (began, first) = (Instant::now(), read());
    std::thread::sleep(SAMPLE);
    let (elapsed, last) = (began.elapsed(), read());
    let ticks = u128::from(last.wrapping_sub(first));
    u64::try_from(ticks * 1_000_000 / elapsed.as_nanos().max(1)).unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
fn read() -> u64 {
    // SAFETY: the instruction exists on every x86-64 processor and touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_a_plausible_frequency() {
        let khz = super::tsc_khz();
        assert!((500_000..10_000_000).contains(&khz), "{khz} kHz");
    }
}
