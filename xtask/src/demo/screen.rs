//! What the user sees: numbered chapters with their times, commands, and a mark for each fact.

use std::fmt::Display;
use std::time::Instant;

use anyhow::bail;

/// The story so far.
pub(super) struct Screen {
    began: Instant,
    chapter: Option<Instant>,
    chapters: u32,
    facts: u32,
}

impl Screen {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            chapter: None,
            chapters: 0,
            facts: 0,
        }
    }

    /// Ends the chapter before and begins another.
    pub(super) fn chapter(&mut self, title: &str) {
        self.end_chapter();
        self.chapters += 1;
        self.chapter = Some(Instant::now());
        println!("\n{:>2}. {title}", self.chapters);
    }

    /// A command as the user would type it.
    pub(super) fn command(&self, words: &[&str]) {
        println!("    $ {}", quoted(words));
    }

    /// What a command said.
    pub(super) fn output(&self, text: &str) {
        for line in text.lines() {
            println!("      {line}");
        }
    }

    /// Shows a fact, and fails unless it holds.
    pub(super) fn check(&mut self, fact: impl Display, holds: bool) -> anyhow::Result<()> {
        if !holds {
            println!("    ✗ {fact}");
            bail!("does not hold: {fact}");
        }
        self.facts += 1;
        println!("    ✓ {fact}");
        Ok(())
    }

    /// The last lines.
    pub(super) fn end(&mut self) {
        self.end_chapter();
        println!(
            "\n{} facts checked in {:.0} s. Next: README.md, or `coppice --help`.",
            self.facts,
            self.began.elapsed().as_secs_f64()
        );
    }

    fn end_chapter(&mut self) {
        if let Some(began) = self.chapter.take() {
            println!("    {:.1} s", began.elapsed().as_secs_f64());
        }
    }
}

/// Words with quotes where a shell wants them.
fn quoted(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            (*word).to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}
