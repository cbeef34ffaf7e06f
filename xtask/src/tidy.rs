//! `cargo xtask tidy`: rules of the house that clippy cannot see.
//!
//! Each rule is a function from what is checked in to complaints. The same rules run as a test, so
//! that nobody has to remember the command.

mod crates;
mod sources;

use std::fmt;

use anyhow::bail;

use crate::workspace::Workspace;
use sources::SourceFile;

/// Something that breaks a rule.
struct Complaint {
    place: String,
    rule: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.rule)
    }
}

/// Prints every complaint and the files that are getting long; fails if there are complaints.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let files = SourceFile::all(&workspace.root)?;
    for (path, lines) in sources::getting_long(&files) {
        println!("tidy: {path} is getting long: {lines} lines");
    }
    let mut complaints = sources::complaints(&files);
    complaints.extend(crates::complaints(workspace)?);
    for complaint in &complaints {
        println!("tidy: {complaint}");
    }
    if !complaints.is_empty() {
        bail!("tidy: {} complaints", complaints.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        run(&Workspace::open().unwrap()).unwrap();
    }
}
