//! Numbers on their way to the daemon.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::numbers::{BOUNDS_MS, Counter, Durations, Gauge};

/// Every number of the edge at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MetricsReport {
    /// In the order in which they are shown.
    pub families: Vec<Family>,
}

/// Samples of one name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// `coppice_edge_…`
    pub name: String,
    /// A sentence.
    pub help: String,
    /// How its samples are to be read.
    pub kind: Kind,
    /// At least one.
    pub samples: Vec<Sample>,
}

/// How samples are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts below bounds, in seconds.
    Histogram,
}

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Appended to the family's name: `_bucket`, `_sum`, `_count` or nothing.
    pub suffix: String,
    /// Label and value, both without characters that need escaping.
    pub labels: Vec<(String, String)>,
    /// The number.
    pub value: f64,
}

impl MetricsReport {
    /// As Prometheus' text, to be put after the daemon's own.
    #[must_use]
    pub fn prometheus(&self) -> String {
        let mut text = String::new();
        for family in &self.families {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            // Writing to a String never fails.
            let _ = writeln!(text, "# HELP {} {}", family.name, family.help);
            let _ = writeln!(text, "# TYPE {} {kind}", family.name);
            for sample in &family.samples {
                let labels: Vec<_> = sample
                    .labels
                    .iter()
                    .map(|(label, value)| format!("{label}=\"{value}\""))
                    .collect();
                let labels = match labels.as_slice() {
                    [] => String::new(),
                    labels => format!("{{{}}}", labels.join(",")),
                };
                let _ = writeln!(
                    text,
                    "{}{}{labels} {}",
                    family.name, sample.suffix, sample.value
                );
            }
        }
        text
    }

    /// The sum of a family's samples with the given label values, for tests and summaries.
    #[must_use]
    pub fn value(&self, family: &str, label: Option<&str>) -> f64 {
        let families = self.families.iter().filter(|one| one.name == family);
        let samples = families.flat_map(|one| &one.samples);
        samples
            .filter(|sample| {
                label.is_none_or(|label| sample.labels.iter().any(|(_, value)| value == label))
            })
            .map(|sample| sample.value)
            .sum()
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 is enough for a count")]
fn number(count: u64) -> f64 {
    count as f64
}

fn family(name: &str, help: &str, kind: Kind, samples: Vec<Sample>) -> Family {
    Family {
        name: name.to_owned(),
        help: help.to_owned(),
        kind,
        samples,
    }
}

fn sample(suffix: &str, label: &str, value_of_label: &str, value: f64) -> Sample {
    let labels = match label {
        "" => Vec::new(),
        label => vec![(label.to_owned(), value_of_label.to_owned())],
    };
    Sample {
        suffix: suffix.to_owned(),
        labels,
        value,
    }
}

/// Counters that differ in the value of one label; an empty label for a single one.
pub(super) fn counters(name: &str, help: &str, label: &str, of: &[(&str, &Counter)]) -> Family {
    let samples = of
        .iter()
        .map(|(value, counter)| sample("", label, value, number(counter.get())))
        .collect();
    family(name, help, Kind::Counter, samples)
}

pub(super) fn gauge(name: &str, help: &str, of: &Gauge) -> Family {
    #[expect(clippy::cast_precision_loss, reason = "2^53 is enough for a count")]
    let value = of.count() as f64;
    family(name, help, Kind::Gauge, vec![sample("", "", "", value)])
}

pub(super) fn histogram(name: &str, help: &str, of: &Durations) -> Family {
    let mut below = 0;
    let mut samples = Vec::new();
    let counts = of.counts();
    for (count, bound) in counts.iter().zip(BOUNDS_MS) {
        below += count;
        let bound = (f64::from(bound) / 1000.0).to_string();
        samples.push(sample("_bucket", "le", &bound, number(below)));
    }
    let all = counts.iter().sum();
    samples.push(sample("_bucket", "le", "+Inf", number(all)));
    samples.push(sample("_sum", "", "", of.sum().as_secs_f64()));
    samples.push(sample("_count", "", "", number(all)));
    family(name, help, Kind::Histogram, samples)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let (ok, failed) = (Counter::default(), Counter::default());
        ok.add(3);
        let durations = Durations::default();
        durations.observe(Duration::from_millis(4));
        durations.observe(Duration::from_secs(60));
        let report = MetricsReport {
            families: vec![
                counters(
                    "a_total",
                    "A.",
                    "outcome",
                    &[("ok", &ok), ("failed", &failed)],
                ),
                histogram("b_seconds", "B.", &durations),
            ],
        };
        let text = report.prometheus();
        assert!(text.starts_with(
            "# HELP a_total A.\n# TYPE a_total counter\na_total{outcome=\"ok\"} 3\na_total{outcome=\"failed\"} 0\n"
        ));
        assert!(
            text.contains("b_seconds_bucket{le=\"0.002\"} 0\nb_seconds_bucket{le=\"0.005\"} 1\n")
        );
        assert!(text.ends_with(
            "b_seconds_bucket{le=\"+Inf\"} 2\nb_seconds_sum 60.004\nb_seconds_count 2\n"
        ));
        assert!((report.value("a_total", Some("ok")) - 3.0).abs() < f64::EPSILON);
    }
}
