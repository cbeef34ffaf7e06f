//! Durations in the notation of the public SDKs (Go's): `30s`, `1h30m`, `0s`.

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a duration is a row of numbers with units ms, s, m or h, such as 30s or 1h30m")]
pub struct DurationError;

/// Longest duration that is accepted: ten years. Anything longer is a mistake,
/// and dates computed from it would leave the range of RFC 3339.
const MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Reads a duration; negative ones and bare numbers other than `0` are refused.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or(DurationError)?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let nanos_per_unit: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(DurationError),
        };
        let number: f64 = number.parse().map_err(|_| DurationError)?;
        let part = Duration::try_from_secs_f64(number * nanos_per_unit / 1e9)
            .map_err(|_| DurationError)?;
        total = total.checked_add(part).ok_or(DurationError)?;
        rest = tail;
    }
    if text.is_empty() || total > MAX {
        return Err(DurationError);
    }
    Ok(total)
}

/// Writes a duration in the same notation, to the millisecond (rounded down).
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let ms = duration.subsec_millis();
    let secs = duration.as_secs();
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    let seconds = if ms == 0 {
        format!("{s}s")
    } else {
        format!("{s}.{ms:03}s")
    };
    match (h, m) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0s", 0),
            ("0", 0),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1_500),
            ("250ms", 250),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for text in ["", "5", "-1s", "s", "1x", "1s-", "99999999h", "1 s"] {
            assert_eq!(parse_duration(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "30s", "1h30m0s", "1.500s", "2m5s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(format_duration(duration), text);
        }
    }
}
