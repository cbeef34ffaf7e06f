//! What was measured, against what, and whether that is good enough.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::json;

use super::samples::{largest, median};
use crate::table;

/// One promise.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    /// What is promised.
    what: &'static str,
    /// Unit of measured and reference, and of the bound if there is no reference.
    unit: &'static str,
    /// The figure that counts.
    measured: f64,
    /// What it is compared with.
    reference: Option<f64>,
    /// Measured by reference.
    ratio: Option<f64>,
    /// Largest ratio, or without reference largest measured figure, that is good enough; none if nothing is promised.
    bound: Option<f64>,
    /// Whether it is.
    pass: bool,
    samples: Vec<f64>,
    reference_samples: Vec<f64>,
}

/// All promises measured so far.
pub(super) struct Report {
    quick: bool,
    rows: Vec<Row>,
}

impl Report {
    /// An empty one.
    pub(super) fn new(quick: bool) -> Self {
        Self {
            quick,
            rows: Vec::new(),
        }
    }

    /// The median of `samples` is to be at most `bound` times the median of `references`.
    pub(super) fn ratio(
        &mut self,
        what: &'static str,
        unit: &'static str,
        samples: &[f64],
        references: &[f64],
        bound: f64,
    ) {
        let (measured, reference) = (median(samples), median(references));
        let ratio = measured / reference;
        self.push(Row {
            what,
            unit,
            measured,
            reference: Some(reference),
            ratio: Some(ratio),
            bound: Some(bound),
            // Not a number fails.
            pass: ratio <= bound,
            samples: samples.to_vec(),
            reference_samples: references.to_vec(),
        });
    }

    /// The median of `samples` and the median of `references`, of which nothing is promised.
    pub(super) fn compare(
        &mut self,
        what: &'static str,
        unit: &'static str,
        samples: &[f64],
        references: &[f64],
    ) {
        let (measured, reference) = (median(samples), median(references));
        self.push(Row {
            what,
            unit,
            measured,
            reference: Some(reference),
            ratio: Some(measured / reference),
            bound: None,
            pass: true,
            samples: samples.to_vec(),
            reference_samples: references.to_vec(),
        });
    }

    /// The median of `samples`, of which nothing is promised.
    pub(super) fn tell(&mut self, what: &'static str, unit: &'static str, samples: &[f64]) {
        self.push(Row {
            what,
            unit,
            measured: median(samples),
            reference: None,
            ratio: None,
            bound: None,
            pass: true,
            samples: samples.to_vec(),
            reference_samples: Vec::new(),
        });
    }

    /// The median of `samples` is to be at most `bound`.
    pub(super) fn at_most(
        &mut self,
        what: &'static str,
        unit: &'static str,
        samples: &[f64],
        bound: f64,
    ) {
        self.absolute(what, unit, samples, median(samples), bound);
    }

    /// None of `samples` is to be more than `bound`.
    pub(super) fn all_at_most(
        &mut self,
        what: &'static str,
        unit: &'static str,
        samples: &[f64],
        bound: f64,
    ) {
        self.absolute(what, unit, samples, largest(samples), bound);
    }

    fn absolute(
        &mut self,
        what: &'static str,
        unit: &'static str,
        samples: &[f64],
        measured: f64,
        bound: f64,
    ) {
        self.push(Row {
            what,
            unit,
            measured,
            reference: None,
            ratio: None,
            bound: Some(bound),
            pass: !samples.is_empty() && measured <= bound,
            samples: samples.to_vec(),
            reference_samples: Vec::new(),
        });
    }

    fn push(&mut self, row: Row) {
        println!("    {}", row.cells().join("  "));
        self.rows.push(row);
    }

    /// Number of promises not kept.
    pub(super) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| !row.pass).count()
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let heads = [
            "",
            "WHAT",
            "MEASURED",
            "REFERENCE",
            "RATIO",
            "BOUND",
            "SAMPLES",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(Row::cells));
        table::aligned(&rows)
    }

    /// For programs.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let cpus = std::thread::available_parallelism()?;
        let report = json!({
            "unix_seconds": now.as_secs(),
            "cpus": cpus,
            "quick": self.quick,
            "missed": self.missed(),
            "rows": self.rows,
        });
        Ok(serde_json::to_string_pretty(&report)?)
    }
}

impl Row {
    fn cells(&self) -> Vec<String> {
        let figure = |value: f64| format!("{value:.1} {}", self.unit);
        let bound = match (self.bound, self.ratio) {
            (None, _) => String::new(),
            (Some(bound), Some(_)) => format!("≤ {bound:.3} ×"),
            (Some(bound), None) => format!("≤ {}", figure(bound)),
        };
        let verdict = match (self.bound, self.pass) {
            (None, _) => "",
            (Some(_), true) => "PASS",
            (Some(_), false) => "FAIL",
        };
        vec![
            verdict.to_owned(),
            self.what.to_owned(),
            figure(self.measured),
            self.reference.map_or_else(String::new, figure),
            self.ratio
                .map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            bound,
            self.samples.len().to_string(),
        ]
    }
}
