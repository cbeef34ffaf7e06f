//! Rules about crates: which may depend on which, and what each must have.

use std::fs;

use anyhow::Context;
use cargo_metadata::{Dependency, DependencyKind, Package};

use super::Complaint;
use crate::workspace::Workspace;

/// A crate and those of ours it may depend on.
struct Arrows {
    crate_name: &'static str,
    always: &'static [&'static str],
    /// As development dependencies, or as optional ones behind a feature for tests.
    for_tests: &'static [&'static str],
}

/// Every arrow there is. ARCHITECTURE.md says why. Tests of a crate may use what the crate may use.
const ARROWS: [Arrows; 15] = [
    Arrows {
        crate_name: "model",
        always: &[],
        for_tests: &[],
    },
    Arrows {
        crate_name: "protocol",
        always: &[],
        for_tests: &[],
    },
    Arrows {
        crate_name: "boot",
        always: &[],
        for_tests: &[],
    },
    Arrows {
        crate_name: "nested",
        always: &[],
        for_tests: &[],
    },
    Arrows {
        crate_name: "memory",
        always: &[],
        for_tests: &[],
    },
    Arrows {
        crate_name: "pager",
        always: &["memory"],
        for_tests: &[],
    },
    Arrows {
        crate_name: "api",
        always: &["model"],
        for_tests: &[],
    },
    Arrows {
        crate_name: "images",
        always: &["model"],
        for_tests: &[],
    },
    Arrows {
        crate_name: "hypervisor",
        always: &["model", "memory"],
        for_tests: &["guest", "pager", "protocol", "boot", "nested"],
    },
    Arrows {
        crate_name: "network",
        always: &["model"],
        for_tests: &[],
    },
    Arrows {
        crate_name: "guest",
        always: &["protocol"],
        for_tests: &["agent", "boot", "hypervisor"],
    },
    Arrows {
        crate_name: "agent",
        always: &["protocol"],
        for_tests: &["guest"],
    },
    Arrows {
        crate_name: "edge",
        always: &["model"],
        for_tests: &[],
    },
    Arrows {
        crate_name: "daemon",
        always: &[
            "model",
            "api",
            "memory",
            "hypervisor",
            "images",
            "guest",
            "protocol",
            "boot",
            "network",
            "edge",
            "pager",
        ],
        for_tests: &[],
    },
    Arrows {
        crate_name: "cli",
        always: &["api"],
        for_tests: &["daemon"],
    },
];

/// Packages that drive the others and may depend on any of them.
const TOOLING: [&str; 2] = ["e2e", "xtask"];

/// What breaks a rule.
pub(super) fn complaints(workspace: &Workspace) -> anyhow::Result<Vec<Complaint>> {
    let packages = workspace.packages();
    let ours: Vec<_> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let architecture = fs::read_to_string(workspace.root.join("ARCHITECTURE.md"));
    let architecture = architecture.unwrap_or_default();
    let mut found = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        let mut complain = |rule: String| {
            found.push(Complaint {
                place: name.into(),
                rule,
            });
        };
        if !inherits_lints(package)? {
            complain("Cargo.toml lacks `[lints] workspace = true`".into());
        }
        if !architecture.contains(&format!("`{name}`")) {
            complain("not named in ARCHITECTURE.md".into());
        }
        if TOOLING.contains(&name) {
            continue;
        }
        let Some(arrows) = ARROWS.iter().find(|arrows| arrows.crate_name == name) else {
            complain("not in the table of arrows in xtask/src/tidy/crates.rs".into());
            continue;
        };
        for dependency in &package.dependencies {
            if ours.contains(&dependency.name.as_str()) && !arrows.allow(dependency) {
                complain(format!("must not depend on {}", dependency.name));
            }
        }
    }
    Ok(found)
}

impl Arrows {
    fn allow(&self, dependency: &Dependency) -> bool {
        let name = dependency.name.as_str();
        let for_tests = dependency.optional || dependency.kind == DependencyKind::Development;
        self.always.contains(&name)
            || for_tests && (self.for_tests.contains(&name) || name == self.crate_name)
    }
}

fn inherits_lints(package: &Package) -> anyhow::Result<bool> {
    let manifest = fs::read_to_string(&package.manifest_path)
        .with_context(|| format!("read {}", package.manifest_path))?;
    let mut lines = manifest
        .lines()
        .skip_while(|line| line.trim() != "[lints]")
        .skip(1);
    Ok(lines
        .next()
        .is_some_and(|line| line.trim() == "workspace = true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_no_circle() {
        // Each crate stands below those that come after it, if they are taken in some order.
        let mut placed: Vec<&str> = Vec::new();
        while placed.len() < ARROWS.len() {
            let next = ARROWS.iter().find(|arrows| {
                !placed.contains(&arrows.crate_name)
                    && arrows.always.iter().all(|below| placed.contains(below))
            });
            placed.push(next.expect("the rest depends on itself").crate_name);
        }
    }
}
