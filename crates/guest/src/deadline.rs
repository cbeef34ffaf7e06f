//! Deadlines with a name.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::LinkError;

/// A point in time by which something must have happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    pub(crate) fn after(duration: Duration) -> Self {
        let now = Instant::now();
        // A duration beyond what the clock can hold is as good as a year.
        Deadline(
            now.checked_add(duration)
                .unwrap_or(now + Duration::from_secs(365 * 86400)),
        )
    }

    /// Runs `work`, or fails by naming `what` was waited for.
    pub(crate) async fn run<T>(
        self,
        what: &'static str,
        work: impl Future<Output = Result<T, LinkError>>,
    ) -> Result<T, LinkError> {
        timeout_at(self.0, work)
            .await
            .unwrap_or(Err(LinkError::Deadline { what }))
    }
}
