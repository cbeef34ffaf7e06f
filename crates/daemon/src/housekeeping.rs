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
/// How often it is looked at what grows slowly: logs, and samples of metrics that nobody
/// collects.
const UPKEEP_TICK: Duration = Duration::from_secs(10);

/// Runs for ever. Logs do not wait for instances: a deletion waits for its turn, and a
/// guest can write a lot meanwhile.
pub(crate) async fn run(instances: Arc<Instances>, metrics: PrometheusHandle) {
    tokio::join!(expire(&instances), keep_up(&instances, &metrics));
}

async fn expire(instances: &Arc<Instances>) {
    let mut ticks = ticks(EXPIRY_TICK);
    loop {
        ticks.tick().await;
        if let Err(failed) = instances.reap().await {
            error!(why = %chain(&failed), "cannot look for expired instances");
        }
    }
}

async fn keep_up(instances: &Arc<Instances>, metrics: &PrometheusHandle) {
    let mut ticks = ticks(UPKEEP_TICK);
    loop {
        ticks.tick().await;
        rotate(instances).await;
        metrics.run_upkeep();
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
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
            let run_dir = dir.run();
            if let Err(failed) = hypervisor::trim_log(&run_dir, logs::ROTATE_AT) {
                error!(dir = %run_dir.display(), why = %failed, "cannot trim the log of a VMM");
            }
        }
    });
    if rotated.await.is_err() {
        error!("log rotation panicked");
    }
}
