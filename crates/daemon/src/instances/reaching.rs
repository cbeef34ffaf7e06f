//! The way to a guest's agent.

use std::time::Duration;

use guest::{Events, Link, LinkError};
use hypervisor::{Vm, VmStatus};
use tokio::time::Instant;

use super::error::OpError;

/// Connections that may be lost before the agent has answered. A machine that was saved ends those that it has when it
/// goes on, and no VMM can tell for sure when it has done so.
const TRIES: u32 = 4;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// Dials and greets the agent. A greeting changes nothing in the guest, so one that was lost is repeated; what comes
/// after it is not.
pub(super) async fn reach(vm: &dyn Vm, limit: Duration) -> Result<(Link, Events), OpError> {
    let until = Instant::now() + limit;
    let mut tries = TRIES;
    loop {
        tries -= 1;
        let left = until.saturating_duration_since(Instant::now());
        let stream = vm.dial(left).await?;
        match Link::connect(stream, left).await {
            Err(LinkError::Closed | LinkError::Io(_))
                if tries > 0 && vm.status().await? == VmStatus::Running => {}
            answer => return Ok(answer?),
        }
        tokio::time::sleep(PAUSE).await;
    }
}
