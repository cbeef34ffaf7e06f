//! Debian packages as raw material for images.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use boot::Step;
use boot::package::{self, Package};

use crate::workspace::Workspace;

/// Packages downloaded before.
pub(crate) struct PackageCache {
    dir: PathBuf,
}

impl PackageCache {
    pub(crate) fn new(workspace: &Workspace) -> anyhow::Result<Self> {
        let dir = workspace.target_dir.join("packages");
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Unpacks the newest versions of packages into a directory.
    pub(crate) fn unpack(&self, names: &[&str], into: &Path) -> anyhow::Result<()> {
        for package in Package::locate(names)? {
            let archive = package.download(&self.dir, &mut |step| {
                if let Step::Download(name) = step {
                    eprintln!("image: downloading {name}");
                }
            })?;
            package::unpack(&archive, into)?;
        }
        Ok(())
    }
}

/// The packages of `roots` and all they depend on, except those whose names begin as one of
/// `left_out`, and what only those need.
pub(crate) fn closure(roots: &[&str], left_out: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let graph = package::dependency_graph(roots)?;
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = roots.to_vec();
    while let Some(name) = open.pop() {
        // Names in angle brackets are virtual: some other package of the closure provides them.
        let skip = name.starts_with('<') || left_out.iter().any(|prefix| name.starts_with(prefix));
        if !skip && found.insert(name.to_owned()) {
            open.extend(graph.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    Ok(found)
}
