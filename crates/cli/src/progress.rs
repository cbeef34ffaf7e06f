//! Bars and spinners on stderr; they vanish when dropped.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Fast enough to look alive.
const TICK: Duration = Duration::from_millis(120);

const SPINNER: &str = "{spinner} {msg} {elapsed:.dim}";
const BAR: &str = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
const COUNT: &str = "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec}";

/// Something that moves while the user waits.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
        }
    }

    pub(crate) fn spinner(text: String) -> Self {
        Self::styled(ProgressBar::new_spinner(), SPINNER, text)
    }

    pub(crate) fn bytes(text: String, total: Option<u64>) -> Self {
        match total {
            Some(total) => Self::styled(ProgressBar::new(total), BAR, text),
            None => Self::styled(ProgressBar::new_spinner(), COUNT, text),
        }
    }

    /// So many more bytes are done.
    pub(crate) fn advance(&self, count: u64) {
        self.bar.inc(count);
    }

    /// What is being done now.
    pub(crate) fn say(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    fn styled(bar: ProgressBar, template: &str, text: String) -> Self {
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(text);
        bar.enable_steady_tick(TICK);
        Self { bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [SPINNER, BAR, COUNT] {
            ProgressStyle::with_template(template).expect(template);
        }
    }
}
