//! What is done from time to time without being asked for: expiry, log rotation, and
//! the folding of metrics.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tracing::error;

use crate::instances::{Instances, LogSource, chain};
use crate::logs;

/// How often expired instances are looked for.
const EXPIRY_TICK: Duration = Duration::from_secs(1);
/// Ticks between two looks at what grows slowly: logs, and samples of metrics that
/// nobody collects.
const ROTATION_TICKS: u32 = 10;

/// Runs for ever.
pub(crate) async fn run(instances: Arc<Instances>, metrics: PrometheusHandle) {
    let mut tick = tokio::time::interval(EXPIRY_TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for count in 1_u32.. {
        tick.tick().await;
        if let Err(failed) = instances.reap().await {
            error!(why = %chain(&failed), "cannot look for expired instances");
        }
        if count.is_multiple_of(ROTATION_TICKS) {
            rotate(&instances).await;
            metrics.run_upkeep();
        }
    }
}

async fn rotate(instances: &Arc<Instances>) {
    let dirs = instances.directories();
    let rotated = tokio::task::spawn_blocking(move || {
        for dir in dirs {
            for source in [
                LogSource::App,
                LogSource::Vmm,
                LogSource::Console,
                LogSource::Operations,
            ] {
                let path = dir.log(source);
                if let Err(failed) = logs::rotate_if_large(&path) {
                    error!(log = %path.display(), why = %failed, "cannot rotate");
                }
            }
        }
    });
    if rotated.await.is_err() {
        error!("log rotation panicked");
    }
}
