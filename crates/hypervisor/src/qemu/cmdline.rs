//! The guest kernel's command line.

use super::kvm::Accel;

/// Words for every guest: console for the log, an end instead of a reboot loop, and random bytes from the first
/// moment (the agent adds the host's on top).
const COMMON: &str = "console=ttyS0 reboot=t panic=-1 quiet random.trust_cpu=on";

/// Command line for a guest on `accel`, with the caller's words at the end.
///
/// Under TCG the guest's time stamp counter is the host's. Left to itself the kernel calibrates it against a timer
/// that is emulated late on a busy host, and then hangs; so it is told the frequency.
pub(super) fn kernel_cmdline(accel: Accel, tsc_khz: u64, extra: &str) -> String {
    let mut line = COMMON.to_owned();
    match accel {
        Accel::Tcg => line.push_str(&format!(" tsc=reliable tsc_early_khz={tsc_khz}")),
        Accel::Kvm => {}
    }
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_frequency_under_tcg_only() {
        let tcg = kernel_cmdline(Accel::Tcg, 2_600_000, "debug");
        assert!(
            tcg.ends_with("tsc=reliable tsc_early_khz=2600000 debug"),
            "{tcg}"
        );
        assert_eq!(kernel_cmdline(Accel::Kvm, 2_600_000, ""), COMMON);
    }
}
