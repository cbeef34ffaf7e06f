//! Versions of QEMU.

use std::fmt;

/// `major.minor.micro`, with the distribution's package in parentheses if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QemuVersion {
    /// Three numbers.
    pub numbers: (u32, u32, u32),
    /// What follows them; patches of a distribution can change device state too.
    pub package: String,
}

impl QemuVersion {
    /// Reads the first line of `qemu-system-… --version`.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let line = output.lines().next()?;
        let rest = line.strip_prefix("QEMU emulator version ")?;
        let (version, package) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut numbers = version.split('.').map(|part| part.parse().ok());
        let numbers = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self {
            numbers,
            package: package.trim_matches(['(', ')']).to_owned(),
        })
    }

    /// The earliest version the driver is tested with. `microvm` with ACPI and JSON block devices need 5.2 at least.
    pub(crate) const OLDEST: (u32, u32, u32) = (7, 2, 0);
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, micro) = self.numbers;
        write!(formatter, "{major}.{minor}.{micro}")?;
        if self.package.is_empty() {
            Ok(())
        } else {
            write!(formatter, " ({})", self.package)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_distributions_print() {
        let table = [
            (
                "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022",
                Some(((7, 2, 22), "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)")),
            ),
            (
                "QEMU emulator version 10.0.2\n",
                Some(((10, 0, 2), "10.0.2")),
            ),
            ("QEMU emulator version 7.2\n", None),
            ("something else 7.2.0", None),
            ("", None),
        ];
        for (text, wanted) in table {
            let found = QemuVersion::parse(text);
            assert_eq!(
                found.map(|version| (version.numbers, version.to_string())),
                wanted.map(|(n, s)| (n, s.to_owned()))
            );
        }
    }
}
