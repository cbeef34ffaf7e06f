//! Byte sizes as people write them; every multiple is binary (1 GB = 2^30 bytes).

use std::fmt;
use std::str::FromStr;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a size is a number with an optional unit B, KB, MB, GB or TB, such as 512MB or 1.5GB")]
pub struct SizeError;

/// A number of bytes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// Units by the number of times that 1024 is multiplied.
const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];

impl ByteSize {
    /// `n` binary mega-bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }

    /// `n` binary giga-bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KB" | "KIB" => 10,
            "M" | "MB" | "MIB" => 20,
            "G" | "GB" | "GIB" => 30,
            "T" | "TB" | "TIB" => 40,
            _ => return Err(SizeError),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| SizeError)?;
        let mut bytes = whole.checked_mul(1 << shift).ok_or(SizeError)?;
        if !fraction.is_empty() {
            // Nine digits are more than any unit can resolve usefully, and cannot overflow.
            if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                return Err(SizeError);
            }
            let digits: u128 = fraction.parse().map_err(|_| SizeError)?;
            let part = (digits << shift) / 10_u128.pow(fraction.len() as u32);
            let part = u64::try_from(part).map_err(|_| SizeError)?;
            bytes = bytes.checked_add(part).ok_or(SizeError)?;
        } else if number.ends_with('.') {
            return Err(SizeError);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ByteSize {
    /// The largest unit that leaves a number of at least one, with one decimal
    /// (rounded down) unless it is whole: `512 MB`, `1.5 GB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut power = 0;
        while power + 1 < UNITS.len() && self.0 >> (10 * (power + 1)) > 0 {
            power += 1;
        }
        let whole = self.0 >> (10 * power);
        let rest = self.0 - (whole << (10 * power));
        let tenths = (u128::from(rest) * 10) >> (10 * power);
        if tenths == 0 {
            write!(f, "{whole} {}", UNITS[power])
        } else {
            write!(f, "{whole}.{tenths} {}", UNITS[power])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_binary_multiples() {
        for (text, bytes) in [
            ("1GB", 1 << 30),
            ("2G", 2 << 30),
            ("512MB", 512 << 20),
            ("1.5 GB", 3 << 29),
            ("10", 10),
            ("0", 0),
            ("64kib", 65536),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in [
            "",
            "GB",
            "-1GB",
            "1XB",
            "1..5GB",
            "1.GB",
            "99999999999TB",
            "1e9",
        ] {
            assert_eq!(text.parse::<ByteSize>(), Err(SizeError), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 30, "1 GB"),
            (3 << 29, "1.5 GB"),
            (256 << 20, "256 MB"),
            (u64::MAX, "16777215.9 TB"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }
}
