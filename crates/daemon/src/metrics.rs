//! The daemon's metrics, named in one place.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use model::State;

use crate::instances::PagerTotals;

/// Installs the recorder; the handle renders what was recorded.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets(&[
            0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
        ])?
        .install_recorder()?;
    describe_counter!(
        "coppice_operations_total",
        "Operations on instances, by outcome and VMM"
    );
    describe_histogram!("coppice_operation_seconds", "Time an operation took");
    describe_histogram!("coppice_phase_seconds", "Time a part of an operation took");
    describe_gauge!("coppice_instances", "Instances by state");
    describe_gauge!("coppice_network_slots", "Slots of the network");
    describe_counter!(
        "coppice_warm_forks_total",
        "Forks prepared ahead, by what became of them"
    );
    describe_gauge!(
        "coppice_pager_serves",
        "Images and machines that pagers serve"
    );
    describe_counter!("coppice_pager_faults_total", "Page faults answered");
    describe_counter!(
        "coppice_pager_bytes_total",
        "Memory filled by pagers, or given back by guests"
    );
    describe_counter!(
        "coppice_pager_events_total",
        "Machines and pagers, by what became of them"
    );
    describe_counter!(
        "coppice_http_requests_total",
        "Requests by method, path and status"
    );
    describe_histogram!(
        "coppice_http_request_seconds",
        "Time to the first byte of the answer"
    );
    Ok(handle)
}

/// An operation on an instance of this VMM ended.
pub(crate) fn operation(name: &'static str, hypervisor: &str, ok: bool, took: Duration) {
    let outcome = if ok { "ok" } else { "error" };
    let hypervisor = hypervisor.to_owned();
    counter!("coppice_operations_total", "operation" => name, "outcome" => outcome, "hypervisor" => hypervisor.clone())
        .increment(1);
    histogram!("coppice_operation_seconds", "operation" => name, "hypervisor" => hypervisor)
        .record(took.as_secs_f64());
}

/// A part of an operation ended.
pub(crate) fn phase(operation: &'static str, phase: &'static str, took: Duration) {
    histogram!("coppice_phase_seconds", "operation" => operation, "phase" => phase)
        .record(took.as_secs_f64());
}

/// How long a running source stood still for a fork.
pub(crate) fn source_paused(took: Duration) {
    phase("fork", "source_paused", took);
}

/// A fork was prepared ahead (`made`, `failed`), or left the pool (`taken`, `ended`).
pub(crate) fn warm_fork(what: &'static str) {
    counter!("coppice_warm_forks_total", "what" => what).increment(1);
}

/// What happened to a machine that a pager serves, or to a pager.
pub(crate) fn pager_event(event: &pager::Event) {
    let what = match event {
        pager::Event::Failed { .. } => "failed",
        pager::Event::Gone(_) => "gone",
        pager::Event::Graduated(_) => "completed",
        pager::Event::TookOver { .. } => "taken_over",
    };
    counter!("coppice_pager_events_total", "what" => what).increment(1);
}

/// What pagers do and did.
pub(crate) fn pagers(totals: &PagerTotals) {
    let now = [("images", totals.images), ("machines", totals.machines)];
    for (what, count) in now {
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        gauge!("coppice_pager_serves", "what" => what).set(count as f64);
    }
    let sum = &totals.sum.0;
    counter!("coppice_pager_faults_total").absolute(sum.faults);
    let bytes = [
        ("copied", sum.copied_bytes),
        ("zeroed", sum.zeroed_bytes),
        ("ahead", sum.ahead_bytes),
        ("removed", sum.removed_bytes),
    ];
    for (how, bytes) in bytes {
        counter!("coppice_pager_bytes_total", "how" => how).absolute(bytes);
    }
}

/// How long guests waited for pages, in the text format of Prometheus: the recorder takes single values only, and
/// pagers count by themselves.
pub(crate) fn fault_seconds(latency: &pager::Histogram) -> String {
    const NAME: &str = "coppice_pager_fault_seconds";
    let mut text =
        format!("# HELP {NAME} Time from a page fault to its answer\n# TYPE {NAME} histogram\n");
    let mut seen = 0;
    for (power, count) in latency.counts.iter().enumerate() {
        seen += count;
        let below_us = (power + 1 < latency.counts.len()).then(|| 1_u64 << power);
        let bound = below_us.map_or("+Inf".to_owned(), |us| seconds(us).to_string());
        text += &format!("{NAME}_bucket{{le=\"{bound}\"}} {seen}\n");
    }
    text += &format!(
        "{NAME}_sum {}\n{NAME}_count {seen}\n",
        seconds(latency.sum_us)
    );
    text
}

#[expect(
    clippy::cast_precision_loss,
    reason = "sums of microseconds reach 2^52 after 142 years"
)]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// How many instances are in each state.
pub(crate) fn instances(count: impl Fn(State) -> u64) {
    for state in State::ALL {
        // Counts of instances are far below 2^52, where f64 would round.
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        gauge!("coppice_instances", "state" => state.as_str()).set(count(state) as f64);
    }
}

/// How full the network is.
pub(crate) fn slots(usage: network::Usage) {
    let states = [
        ("in_use", usage.in_use),
        ("ready", usage.ready),
        ("capacity", usage.capacity),
    ];
    for (state, count) in states {
        // A pool has far fewer than 2^52 addresses.
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        gauge!("coppice_network_slots", "state" => state).set(count as f64);
    }
}

/// A request was answered.
pub(crate) fn request(method: &'static str, path: String, status: u16, took: Duration) {
    counter!(
        "coppice_http_requests_total",
        "method" => method, "path" => path.clone(), "status" => status.to_string()
    )
    .increment(1);
    histogram!("coppice_http_request_seconds", "method" => method, "path" => path)
        .record(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histogram_of_faults_is_one_that_prometheus_reads() {
        let mut latency = pager::Histogram::default();
        latency.counts[0] = 1;
        latency.counts[3] = 2;
        latency.counts[pager::LATENCY_BUCKETS - 1] = 4;
        latency.sum_us = 1_500_000;
        let text = fault_seconds(&latency);
        let lines: Vec<_> = text.lines().collect();
        let of = |what: &str| {
            let line = format!("coppice_pager_fault_seconds{what}");
            assert!(lines.contains(&line.as_str()), "{line}: {text}");
        };
        assert_eq!(lines[1], "# TYPE coppice_pager_fault_seconds histogram");
        of("_bucket{le=\"0.000001\"} 1");
        of("_bucket{le=\"0.000004\"} 1");
        of("_bucket{le=\"0.000008\"} 3");
        of("_bucket{le=\"4.194304\"} 3");
        of("_bucket{le=\"+Inf\"} 7");
        of("_sum 1.5");
        of("_count 7");
        assert_eq!(lines.len(), 2 + pager::LATENCY_BUCKETS + 2);
    }
}
