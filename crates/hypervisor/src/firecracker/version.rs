//! Versions of Firecracker.

use std::fmt;

/// A version of Firecracker, as it says it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FirecrackerVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub patch: u32,
}

impl FirecrackerVersion {
    /// Oldest version that this driver knows how to speak with; the network override of a restore came with it.
    pub const OLDEST: Self = Self::new(1, 12, 0);

    const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    /// Reads what `firecracker --version` prints first.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let version = text.lines().next()?.strip_prefix("Firecracker v")?;
        // A build between releases has a suffix.
        let plain = version.split(['-', ' ', '+']).next()?;
        let mut numbers = plain.split('.').map(|number| number.parse().ok());
        let mut number = || numbers.next().flatten();
        let version = Self::new(number()?, number()?, number()?);
        numbers.next().is_none().then_some(version)
    }

    /// Name of the option of `/snapshot/load` that lets a restored machine be saved as a diff.
    pub(super) fn diff_option(self) -> &'static str {
        if self >= Self::new(1, 13, 0) {
            "track_dirty_pages"
        } else {
            "enable_diff_snapshots"
        }
    }

    /// Published holes that this version has, in the words of an operator.
    #[must_use]
    pub fn known_holes(self) -> Vec<&'static str> {
        let mut holes = Vec::new();
        let jailer_fixed = match (self.major, self.minor) {
            (1, 13) => Self::new(1, 13, 2),
            _ => Self::new(1, 14, 1),
        };
        if self < jailer_fixed {
            holes.push(
                "CVE-2026-1386: the jailer follows a symbolic link of a local user (fixed in 1.13.2 and 1.14.1)",
            );
        }
        let pci_fixed = match (self.major, self.minor) {
            (1, 13 | 14) => Some(Self::new(1, 14, 4)),
            (1, 15) => Some(Self::new(1, 15, 1)),
            _ => None,
        };
        if pci_fixed.is_some_and(|fixed| self < fixed) {
            holes.push("CVE-2026-5747: a guest writes outside a virtio-pci queue (fixed in 1.14.4 and 1.15.1; machines made here have no PCI)");
        }
        holes
    }
}

impl fmt::Display for FirecrackerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_program_prints() {
        let table = [
            ("Firecracker v1.12.1\n\nexiting", Some((1, 12, 1))),
            ("Firecracker v1.14.0-dev", Some((1, 14, 0))),
            ("Firecracker v1.12", None),
            ("Firecracker v1.2.3.4", None),
            ("QEMU emulator version 7.2", None),
            ("", None),
        ];
        for (text, wanted) in table {
            let wanted = wanted.map(|(a, b, c)| FirecrackerVersion::new(a, b, c));
            assert_eq!(FirecrackerVersion::parse(text), wanted, "{text}");
        }
    }

    #[test]
    fn holes_end_with_the_versions_that_closed_them() {
        let holes = |a, b, c| FirecrackerVersion::new(a, b, c).known_holes().len();
        assert_eq!(holes(1, 12, 1), 1);
        assert_eq!(holes(1, 13, 1), 2);
        assert_eq!(holes(1, 13, 2), 1);
        assert_eq!(holes(1, 14, 4), 0);
        assert_eq!(holes(1, 15, 0), 1);
        assert_eq!(holes(1, 15, 1), 0);
    }
}
