//! Transfer rates as people write them; every multiple is decimal (1 Mbps = 10^6 bit/s).

use std::fmt;
use std::str::FromStr;

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a rate is a number with a unit: bps, kbps, Mbps or Gbps for bits, B/s, KB/s, MB/s or GB/s for bytes, such as 100Mbps or 12.5MB/s"
)]
pub struct RateError;

/// Bits in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// Units of bits, each a thousand times the one before.
const UNITS: [&str; 4] = ["bps", "kbps", "Mbps", "Gbps"];

/// Digits after the point: more than any unit resolves.
const MAX_FRACTION: usize = 9;

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let text = text.trim();
        let split = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or(RateError)?;
        let (number, unit) = text.split_at(split);
        let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "bps" | "bit/s" => 1,
            "kbps" | "kbit/s" => 1_000,
            "mbps" | "mbit/s" => 1_000_000,
            "gbps" | "gbit/s" => 1_000_000_000,
            "b/s" => 8,
            "kb/s" => 8_000,
            "mb/s" => 8_000_000,
            "gb/s" => 8_000_000_000,
            _ => return Err(RateError),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > MAX_FRACTION {
            return Err(RateError);
        }
        let whole: u64 = whole.parse().map_err(|_| RateError)?;
        let part: u128 = fraction.parse().map_err(|_| RateError)?;
        // At most nine digits: the power fits, and so does the product.
        let scale = 10_u128.pow(fraction.len() as u32);
        let part = u64::try_from(part * u128::from(factor) / scale).map_err(|_| RateError)?;
        let bits = whole
            .checked_mul(factor)
            .and_then(|bits| bits.checked_add(part));
        bits.map(Self).ok_or(RateError)
    }
}

impl fmt::Display for Rate {
    /// The largest unit that leaves a whole number: `1Gbps`, `12500kbps`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut value, mut unit) = (self.0, 0);
        while unit + 1 < UNITS.len() && value > 0 && value % 1000 == 0 {
            value /= 1000;
            unit += 1;
        }
        write!(f, "{value}{}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_bytes_are_told_apart_by_their_units() {
        for (text, bits) in [
            ("125MB/s", 1_000_000_000),
            ("1Gbps", 1_000_000_000),
            ("12.5 MB/s", 100_000_000),
            ("0.5mbps", 500_000),
            ("800bps", 800),
            ("10 Mbit/s", 10_000_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bits)), "{text}");
        }
        for wrong in [
            "",
            "10",
            "Mbps",
            "1.Mbps",
            ".5Mbps",
            "1..5Mbps",
            "-1Mbps",
            "1MB",
            "99999999999Gbps",
            "1.0000000001Mbps",
        ] {
            assert_eq!(wrong.parse::<Rate>(), Err(RateError), "{wrong}");
        }
    }

    #[test]
    fn rates_are_shown_in_whole_units() {
        for (bits, text) in [
            (0, "0bps"),
            (1_000_000_000, "1Gbps"),
            (12_500_000, "12500kbps"),
            (96_001, "96001bps"),
        ] {
            assert_eq!(Rate(bits).to_string(), text);
            assert_eq!(text.parse(), Ok(Rate(bits)));
        }
    }
}
