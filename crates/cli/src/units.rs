//! Bytes and ages for people.

use time::OffsetDateTime;

/// A size with binary multiples and at most one decimal, rounded down, as the
/// server writes sizes: `512 MB`, `1.5 GB`.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let power = (1..UNITS.len())
        .rev()
        .find(|power| count >> (10 * power) > 0)
        .unwrap_or(0);
    let unit = 1_u64 << (10 * power);
    let tenths = u128::from(count % unit) * 10 / u128::from(unit);
    match tenths {
        0 => format!("{} {}", count / unit, UNITS[power]),
        _ => format!("{}.{tenths} {}", count / unit, UNITS[power]),
    }
}

/// How long ago something was, in its largest unit; `0s` for the future, since
/// clocks differ.
pub(crate) fn age(since: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - since).whole_seconds().max(0);
    match seconds {
        ..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    #[test]
    fn bytes_have_the_largest_unit_that_fits() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KB"),
            (1536, "1.5 KB"),
            ((1 << 30) - 1, "1023.9 MB"),
            (3 << 29, "1.5 GB"),
            (u64::MAX, "16777215.9 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn ages_have_one_unit() {
        let now = datetime!(2026-01-01 00:00 UTC);
        for (seconds, text) in [
            (-5, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7200, "2h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(now - Duration::seconds(seconds), now), text);
        }
    }
}
