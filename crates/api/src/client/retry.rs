//! Whether and when to ask again: a pure decision.

use std::time::Duration;

use reqwest::header::HeaderMap;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// How often a request is repeated at most, as public SDKs do.
pub(super) const MAX_RETRIES: u32 = 2;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// A server that asks for more patience than this is not waited for.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(60);

/// Whether repeating a request could do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It only reads.
    Harmless,
    /// It may have done something; only the server can say that it did not.
    IfTold,
}

/// How long to pause before asking again, or none to give up.
///
/// `attempt` counts from 0, `jitter` is in 0..1 and `now` is for dates in
/// `retry-after`.
pub(super) fn pause(
    repeat: Repeat,
    status: u16,
    headers: &HeaderMap,
    attempt: u32,
    jitter: f64,
    now: OffsetDateTime,
) -> Option<Duration> {
    if attempt >= MAX_RETRIES || !wanted(repeat, status, headers) {
        return None;
    }
    match asked_pause(headers, now) {
        Some(asked) if asked <= LONGEST_ASKED_PAUSE => Some(asked),
        Some(_) | None => Some(own_pause(attempt, jitter)),
    }
}

/// The pause when the server asks for none: doubling, less up to a quarter so
/// that clients do not come back all at once.
pub(super) fn own_pause(attempt: u32, jitter: f64) -> Duration {
    (FIRST_PAUSE * 2_u32.saturating_pow(attempt))
        .min(LONGEST_PAUSE)
        .mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

fn wanted(repeat: Repeat, status: u16, headers: &HeaderMap) -> bool {
    match (text(headers, "x-should-retry"), repeat) {
        (Some("true"), _) => true,
        (Some("false"), _) | (_, Repeat::IfTold) => false,
        (_, Repeat::Harmless) => matches!(status, 408 | 429 | 500..=599),
    }
}

fn asked_pause(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    if let Some(ms) = text(headers, "retry-after-ms").and_then(|ms| ms.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let after = text(headers, "retry-after")?;
    if let Ok(seconds) = after.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = OffsetDateTime::parse(after, &Rfc2822).ok()?;
    Duration::try_from(date - now).ok()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn check(
        repeat: Repeat,
        status: u16,
        headers: &[(&'static str, &str)],
        attempt: u32,
    ) -> Option<u128> {
        let headers = headers
            .iter()
            .map(|(name, value)| {
                (
                    reqwest::header::HeaderName::from_static(name),
                    value.parse().expect("a header value"),
                )
            })
            .collect();
        pause(
            repeat,
            status,
            &headers,
            attempt,
            0.0,
            datetime!(2026-01-01 00:00 UTC),
        )
        .map(|pause| pause.as_millis())
    }

    #[test]
    fn reads_are_repeated_while_the_server_is_unwell() {
        assert_eq!(check(Repeat::Harmless, 503, &[], 0), Some(500));
        assert_eq!(check(Repeat::Harmless, 503, &[], 1), Some(1000));
        assert_eq!(check(Repeat::Harmless, 503, &[], 2), None);
        assert_eq!(check(Repeat::Harmless, 404, &[], 0), None);
        assert_eq!(check(Repeat::Harmless, 409, &[], 0), None);
    }

    #[test]
    fn the_server_decides_about_the_rest() {
        assert_eq!(check(Repeat::IfTold, 503, &[], 0), None);
        assert_eq!(
            check(Repeat::IfTold, 409, &[("x-should-retry", "true")], 0),
            Some(500)
        );
        assert_eq!(
            check(Repeat::Harmless, 503, &[("x-should-retry", "false")], 0),
            None
        );
    }

    #[test]
    fn the_server_may_name_the_pause() {
        let unwell = |headers: &[(&'static str, &str)]| check(Repeat::Harmless, 503, headers, 0);
        assert_eq!(
            unwell(&[("retry-after-ms", "20"), ("retry-after", "9")]),
            Some(20)
        );
        assert_eq!(unwell(&[("retry-after", "3")]), Some(3000));
        assert_eq!(
            unwell(&[("retry-after", "Thu, 01 Jan 2026 00:00:05 GMT")]),
            Some(5000)
        );
        assert_eq!(unwell(&[("retry-after", "3600")]), Some(500));
        assert_eq!(unwell(&[("retry-after", "soon")]), Some(500));
    }

    #[test]
    fn pauses_have_a_ceiling() {
        assert_eq!(own_pause(40, 0.0), LONGEST_PAUSE);
        assert_eq!(own_pause(0, 1.0), Duration::from_millis(375));
    }
}
