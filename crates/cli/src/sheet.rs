//! All about one thing, a line for each fact.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Width of the names of facts.
const LABEL_WIDTH: usize = 14;

/// Lines of a name and a value.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    text: String,
}

impl Sheet {
    pub(crate) fn row(&mut self, label: &str, value: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("{label:<LABEL_WIDTH$}{value}"));
    }

    pub(crate) fn time(&mut self, label: &str, time: Option<OffsetDateTime>) {
        let written = time
            .and_then(|time| time.replace_nanosecond(0).ok())
            .and_then(|time| time.format(&Rfc3339).ok());
        if let Some(written) = written {
            self.row(label, &written);
        }
    }
    /// Without an end of line on the last row.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}
