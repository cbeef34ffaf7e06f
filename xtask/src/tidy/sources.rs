//! Rules about single files.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::Complaint;

/// Lines from which a file is mentioned, so that it is split before it must be.
const LONG_LINES: usize = 400;

/// No file has more lines than this.
const MOST_LINES: usize = 800;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = [
    "base", "common", "core", "helper", "helpers", "manager", "misc", "utils",
];

/// Words that mark unfinished work. Written in two halves, since this file is checked as well.
const MARKERS: [&str; 6] = [
    concat!("to", "do!"),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("db", "g!"),
];

/// Beginnings of paths that exist on some developer's machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "coppice"),
];

/// Kinds of files that are looked at.
const KINDS: [&str; 8] = ["md", "py", "rs", "sh", "snap", "toml", "yaml", "yml"];

/// Directories that hold nothing written by us.
const FOREIGN_DIRECTORIES: [&str; 4] = [".git", "artifacts", "corpus", "target"];

/// A text file of the checkout.
pub(super) struct SourceFile {
    /// Relative to the checkout, with forward slashes.
    path: String,
    text: String,
}

impl SourceFile {
    /// Every text file below a directory.
    pub(super) fn all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let mut files = Vec::new();
        read_below(root, root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The name a module or crate has because of this file.
    fn module_name(&self) -> &str {
        let stem = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        stem.rsplit('/').next().unwrap_or(stem)
    }

    /// Whether system calls may be made here without the compiler's guard.
    fn is_sys(&self) -> bool {
        self.path.ends_with("/sys.rs") || self.path.contains("/sys/")
    }
}

/// Rust files that should be split soon, with their lengths.
pub(super) fn getting_long(files: &[SourceFile]) -> Vec<(&str, usize)> {
    files
        .iter()
        .filter(|file| file.is_rust())
        .map(|file| (file.path.as_str(), file.text.lines().count()))
        .filter(|(_, lines)| *lines > LONG_LINES)
        .collect()
}

/// What breaks a rule.
pub(super) fn complaints(files: &[SourceFile]) -> Vec<Complaint> {
    files.iter().flat_map(file_complaints).collect()
}

fn file_complaints(file: &SourceFile) -> Vec<Complaint> {
    let mut found = Vec::new();
    let mut complain = |place: String, rule: String| found.push(Complaint { place, rule });
    if file.is_rust() {
        let lines = file.text.lines().count();
        if lines > MOST_LINES {
            complain(
                file.path.clone(),
                format!("{lines} lines, at most {MOST_LINES}"),
            );
        }
        let name = file.module_name();
        if EMPTY_NAMES.contains(&name) {
            complain(
                file.path.clone(),
                format!("the name {name} does not say what is inside"),
            );
        }
    }
    for (number, line) in (1..).zip(file.text.lines()) {
        if let Some(rule) = line_complaint(file, line) {
            complain(format!("{}:{number}", file.path), rule);
        }
    }
    found
}

fn line_complaint(file: &SourceFile, line: &str) -> Option<String> {
    if let Some(marker) = MARKERS.iter().find(|marker| line.contains(**marker)) {
        return Some(format!("unfinished work: {marker}"));
    }
    if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(**path)) {
        return Some(format!("path of one machine: {path}"));
    }
    (file.is_rust() && !file.is_sys() && has_unsafe_code(line))
        .then(|| "unsafe code outside a module named sys".to_owned())
}

/// Whether a line of code, not of comment or text, uses the keyword. Told by what follows it.
fn has_unsafe_code(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let followers = ["{", "fn ", "impl ", "extern ", "trait "];
    code.match_indices("unsafe ").any(|(at, keyword)| {
        let before = code[..at].chars().next_back();
        let rest = &code[at + keyword.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"')
            && followers.iter().any(|follower| rest.starts_with(follower))
    })
}

fn read_below(root: &Path, dir: &Path, files: &mut Vec<SourceFile>) -> anyhow::Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !FOREIGN_DIRECTORIES.contains(&name.as_ref()) {
                read_below(root, &path, files)?;
            }
            continue;
        }
        let kind = path.extension().unwrap_or_default().to_string_lossy();
        if !KINDS.contains(&kind.as_ref()) && name != "Makefile" && name != "run" {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        files.push(SourceFile {
            path: path.strip_prefix(root)?.to_string_lossy().into_owned(),
            text: String::from_utf8_lossy(&bytes).into_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules_broken(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile {
            path: path.into(),
            text: text.into(),
        };
        complaints(&[file])
            .into_iter()
            .map(|complaint| complaint.to_string())
            .collect()
    }

    #[test]
    fn unsafe_code_belongs_into_sys() {
        let code = concat!("fn f() {\n    un", "safe { g() }\n}\n");
        assert_eq!(
            rules_broken("crates/a/src/b.rs", code),
            ["crates/a/src/b.rs:2: unsafe code outside a module named sys"]
        );
        assert!(rules_broken("crates/a/src/sys.rs", code).is_empty());
        assert!(rules_broken("crates/a/src/sys/fd.rs", code).is_empty());
        assert!(
            rules_broken("crates/a/src/b.rs", concat!("// un", "safe { } is bad\n")).is_empty()
        );
        assert!(rules_broken("crates/a/src/b.rs", "let unsafe_code = 1;\n").is_empty());
    }

    #[test]
    fn long_files_empty_names_and_markers_are_found() {
        let long = "\n".repeat(MOST_LINES + 1);
        assert_eq!(rules_broken("crates/a/src/b.rs", &long).len(), 1);
        assert_eq!(rules_broken("crates/a/src/utils.rs", "").len(), 1);
        assert_eq!(rules_broken("crates/a/src/common/mod.rs", "").len(), 1);
        for marker in MARKERS {
            assert_eq!(rules_broken("docs/a.md", marker).len(), 1, "{marker}");
        }
        for path in MACHINE_PATHS {
            assert_eq!(
                rules_broken("Makefile", &format!("cd {path}x")).len(),
                1,
                "{path}"
            );
        }
    }
}
