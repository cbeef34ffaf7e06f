//! Waiting for conditions, each wait with an end.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The longest any condition is waited for: emulated guests on a busy host are slow, but not slower.
#[must_use]
pub const fn patience() -> Duration {
    Duration::from_secs(60)
}

/// Looks at a condition until it gives something. Panics with `what` when it does not in time.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// A moment to strike at, drawn at random: the stimulus of tests that kill something in the middle of its work.
#[derive(Clone, Copy, Debug)]
pub struct Moment(Duration);

impl Moment {
    /// A moment up to `most` from now. It is printed, so that a failure can be told from others.
    #[must_use]
    pub fn within(most: Duration) -> Self {
        let draw = getrandom::u32().expect("the host has entropy");
        let moment = most.mul_f64(f64::from(draw) / f64::from(u32::MAX));
        println!("striking after {} ms", moment.as_millis());
        Self(moment)
    }

    /// Waits for it.
    pub async fn come(self) {
        tokio::time::sleep(self.0).await;
    }
}
