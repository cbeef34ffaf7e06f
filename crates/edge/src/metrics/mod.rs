//! What is counted, and how the daemon shows it.

mod numbers;
mod report;

pub(crate) use numbers::{Counted, Counter, Durations, Gauge};
pub use report::{Family, Kind, MetricsReport, Sample};

use report::{counters, gauge, histogram};

/// Every number of one edge.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By the hundreds of the status.
    pub(crate) requests: [Counter; 6],
    pub(crate) request_duration: Durations,
    pub(crate) client_connections: Gauge,
    pub(crate) client_connections_refused: Counter,
    pub(crate) tls_failures: Counter,
    pub(crate) guest_connections: Gauge,
    pub(crate) guest_connections_opened: Counter,
    pub(crate) guest_connections_failed: Counter,
    pub(crate) upgraded: Gauge,
    pub(crate) held_requests: Gauge,
    pub(crate) wakes_done: Counter,
    pub(crate) wakes_failed: Counter,
    pub(crate) dns_connections: Gauge,
    pub(crate) dns_answered: Counter,
    pub(crate) dns_no_name: Counter,
    pub(crate) dns_refused: Counter,
    pub(crate) dns_failed: Counter,
    pub(crate) dns_dropped: Counter,
    pub(crate) dns_duration: Durations,
    pub(crate) forward_connections: Gauge,
    pub(crate) forward_opened: Counter,
    pub(crate) forward_failed: Counter,
    pub(crate) forward_bytes: Counter,
}

impl Metrics {
    /// Counts an answer to a client.
    pub(crate) fn request(&self, status: u16, took: std::time::Duration) {
        let class = usize::from(status / 100).min(self.requests.len() - 1);
        self.requests[class].one();
        self.request_duration.observe(took);
    }

    pub(crate) fn report(&self, access_lines_lost: &Counter) -> MetricsReport {
        let mut families = self.ingress();
        families.push(counters(
            "coppice_edge_access_lines_lost_total",
            "Lines that the access log was too slow for.",
            "",
            &[("", access_lines_lost)],
        ));
        families.extend(self.guests());
        families.extend(self.dns());
        families.extend(self.forwards());
        MetricsReport { families }
    }

    fn ingress(&self) -> Vec<Family> {
        let classes = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let requests: Vec<_> = classes.into_iter().zip(&self.requests).collect();
        vec![
            counters(
                "coppice_edge_requests_total",
                "Answers to clients of ingress.",
                "status",
                &requests,
            ),
            histogram(
                "coppice_edge_request_seconds",
                "From a request's headers to the headers of its answer.",
                &self.request_duration,
            ),
            gauge(
                "coppice_edge_client_connections",
                "Open connections of clients of ingress.",
                &self.client_connections,
            ),
            counters(
                "coppice_edge_client_connections_closed_early_total",
                "Connections that brought no request.",
                "reason",
                &[
                    ("limit", &self.client_connections_refused),
                    ("tls", &self.tls_failures),
                ],
            ),
            gauge(
                "coppice_edge_upgraded_connections",
                "Websockets and the like.",
                &self.upgraded,
            ),
        ]
    }

    fn guests(&self) -> Vec<Family> {
        let connects = [
            ("ok", &self.guest_connections_opened),
            ("failed", &self.guest_connections_failed),
        ];
        let wakes = [("ok", &self.wakes_done), ("failed", &self.wakes_failed)];
        vec![
            gauge(
                "coppice_edge_guest_connections",
                "Open connections of ingress to guests.",
                &self.guest_connections,
            ),
            counters(
                "coppice_edge_guest_connects_total",
                "Connections of ingress to guests.",
                "outcome",
                &connects,
            ),
            gauge(
                "coppice_edge_held_requests",
                "Requests that wait for an instance to wake.",
                &self.held_requests,
            ),
            counters(
                "coppice_edge_wakes_total",
                "Instances woken for a request.",
                "outcome",
                &wakes,
            ),
        ]
    }

    fn dns(&self) -> Vec<Family> {
        let outcomes = [
            ("answered", &self.dns_answered),
            ("no_name", &self.dns_no_name),
            ("refused", &self.dns_refused),
            ("failed", &self.dns_failed),
            ("dropped", &self.dns_dropped),
        ];
        vec![
            counters(
                "coppice_edge_dns_queries_total",
                "Queries for names.",
                "outcome",
                &outcomes,
            ),
            histogram(
                "coppice_edge_dns_seconds",
                "From a query to its answer.",
                &self.dns_duration,
            ),
        ]
    }

    fn forwards(&self) -> Vec<Family> {
        let outcomes = [
            ("ok", &self.forward_opened),
            ("failed", &self.forward_failed),
        ];
        vec![
            gauge(
                "coppice_edge_forward_connections",
                "Open connections and flows of published ports.",
                &self.forward_connections,
            ),
            counters(
                "coppice_edge_forwards_total",
                "Connections and flows of published ports.",
                "outcome",
                &outcomes,
            ),
            counters(
                "coppice_edge_forward_bytes_total",
                "Bytes through published ports.",
                "",
                &[("", &self.forward_bytes)],
            ),
        ]
    }
}
