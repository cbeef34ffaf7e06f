//! What lies in the data directory, and what must not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Daemon;

/// States in which a VMM runs.
const WITH_VMM: [&str; 5] = ["Created", "Initializing", "Running", "Paused", "Shutdown"];

impl Daemon {
    /// All instances that are shown.
    pub async fn list(&self) -> Vec<Value> {
        let listed = self.get("/instances").await.expect(200);
        listed.as_array().expect("a bare list").clone()
    }

    /// The names of all instances, sorted.
    pub async fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .list()
            .await
            .iter()
            .map(|instance| instance["name"].as_str().unwrap_or_default().to_owned())
            .collect();
        names.sort();
        names
    }

    /// The directory of an instance.
    #[must_use]
    pub fn directory(&self, instance: &str) -> PathBuf {
        self.data().join("instances").join(instance)
    }

    /// The directories of the memory images that an instance has.
    #[must_use]
    pub fn images(&self, instance: &str) -> Vec<PathBuf> {
        let mut images = below(&self.directory(instance).join("memory"));
        // Beside an image lies what is known of it: its hot pages.
        images.retain(|path| path.is_dir());
        images
    }

    /// The directory of the only memory image that an instance has.
    #[must_use]
    #[track_caller]
    pub fn image(&self, instance: &str) -> PathBuf {
        let mut images = self.images(instance);
        assert_eq!(images.len(), 1, "{images:?}");
        images.remove(0)
    }

    /// Checks that directories, processes and records are those of the same instances, that none has more than one
    /// process or image, and that nothing half-made lies about.
    pub async fn expect_tidy(&self) {
        let listed = self.list().await;
        let mut with_vmm = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for instance in &listed {
            let id = instance["id"].as_str().unwrap_or_default().to_owned();
            let state = instance["state"].as_str().unwrap_or_default();
            assert_ne!(state, "Unknown", "{instance}");
            if WITH_VMM.contains(&state) {
                with_vmm.insert(id.clone());
            }
            assert!(self.images(&id).len() <= 1, "{:?}", self.images(&id));
            ids.insert(id);
        }
        let directories: BTreeSet<String> = below(&self.data().join("instances"))
            .iter()
            .map(|path| file_name(path))
            .collect();
        assert_eq!(directories, ids, "directories and records");
        let mut running: Vec<String> = self
            .machines()
            .into_iter()
            .filter_map(|process| process.instance)
            .collect();
        running.sort();
        let expected: Vec<String> = with_vmm.into_iter().collect();
        assert_eq!(running, expected, "processes and states");
        let half_made: Vec<PathBuf> = files(self.data())
            .into_iter()
            .filter(|path| {
                let name = file_name(path);
                // The image store's lock is a file that stays.
                (name.starts_with('.') && name != ".lock")
                    || [".tmp", ".new", ".part", ".draft"]
                        .iter()
                        .any(|end| name.ends_with(end))
            })
            .collect();
        assert_eq!(half_made, Vec::<PathBuf>::new(), "half-made files");
    }
}

/// The SHA-256 of every file below a directory, by its path within.
#[must_use]
pub fn hashes(directory: &Path) -> BTreeMap<PathBuf, String> {
    files(directory)
        .into_iter()
        .map(|path| {
            let bytes = fs::read(&path).expect("a file of an image");
            let name = path.strip_prefix(directory).expect("below").to_owned();
            (name, hex::encode(Sha256::digest(bytes)))
        })
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in below(directory) {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// What lies in a directory; nothing if it is not there.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
        .to_owned()
}
