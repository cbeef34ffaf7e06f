//! Objects with a mark in their names.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::nft::Nft;
use super::route::Route;
use super::slot::collect;
use super::{claim, netns};
use crate::plan::{Names, link_mark, table_mark};
use crate::{Leftover, LeftoverKind, Mark, NetworkError, Slot};

/// File in a daemon's directory that is locked while it runs.
const LOCK: &str = "lock";

/// Takes the lock of a mark; `None` if somebody has it.
pub(super) fn lock(names: &Names) -> Result<Option<File>, NetworkError> {
    let path = names.run_dir().join(LOCK);
    let open = || {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    open().map_err(NetworkError::io("lock", path.display()))
}

/// Everything on this host that has a mark of this product, of any daemon.
pub(super) fn all(run_root: &Path) -> Result<BTreeSet<Leftover>, NetworkError> {
    let mut found = BTreeSet::new();
    let mut add = |kind, name: String, mark: Option<Mark>| {
        found.extend(mark.map(|mark| Leftover {
            kind,
            name,
            mark: mark.to_string(),
        }));
    };
    let links = Route::open().and_then(|mut route| route.links());
    for link in links.map_err(NetworkError::io("list", "interfaces"))? {
        let mark = link_mark(&link.name);
        add(LeftoverKind::Link, link.name, mark);
    }
    let tables = Nft::open().and_then(|mut nft| nft.tables());
    for table in tables.map_err(NetworkError::io("list", "nftables"))? {
        let mark = table_mark(&table);
        add(LeftoverKind::Table, table, mark);
    }
    for dir in entries(run_root)? {
        let Ok(mark) = dir.parse::<Mark>() else {
            continue;
        };
        let netns = run_root.join(dir).join("netns");
        for name in entries(&netns)? {
            let path = netns.join(name).display().to_string();
            add(LeftoverKind::Namespace, path, Some(mark.clone()));
        }
    }
    Ok(found)
}

/// Objects of daemons that do not run. For `coppice doctor`, which may run without one.
pub fn leftovers(run_root: &Path) -> Result<Vec<Leftover>, NetworkError> {
    let found = all(run_root)?;
    Ok(found
        .into_iter()
        .filter(|object| !is_served(run_root, &object.mark))
        .collect())
}

/// Whether a daemon with this mark runs.
pub(super) fn is_served(run_root: &Path, mark: &str) -> bool {
    let Ok(file) = File::open(run_root.join(mark).join(LOCK)) else {
        return false;
    };
    // Shared, so that two who look do not take each other for a daemon; it ends with the file.
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Removes everything of a mark: links, namespaces, table, claim, directory. Its daemon must not run.
pub fn remove_all(names: &Names) -> Result<Vec<Leftover>, NetworkError> {
    let _lock = match names.run_dir().exists() {
        true => Some(lock(names)?.ok_or_else(|| NetworkError::MarkInUse {
            mark: names.mark().to_string(),
        })?),
        false => None,
    };
    let found: Vec<_> = all(names.run_root())?
        .into_iter()
        .filter(|object| object.mark == names.mark().as_str())
        .collect();
    let anchor = names.anchor();
    let objects = found
        .iter()
        .filter(|object| object.name != anchor)
        .map(remove);
    let mut done: Vec<_> = objects.collect();
    done.push(claim::release(names, None));
    collect(done)?;
    match fs::remove_dir_all(names.run_dir()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(NetworkError::io("remove", names.run_dir().display())(error))
        }
        _ => Ok(found),
    }
}

/// Removes one object; it is no error if it is gone.
pub(super) fn remove(object: &Leftover) -> Result<(), NetworkError> {
    let removed = match object.kind {
        LeftoverKind::Link => Route::open().and_then(|mut route| route.remove_link(&object.name)),
        LeftoverKind::Table => Nft::open().and_then(|mut nft| nft.remove_table(&object.name)),
        LeftoverKind::Namespace => netns::remove(Path::new(&object.name)),
    };
    removed.map_err(NetworkError::io("remove", &object.name))
}

/// Slot that an object of this mark belongs to; `None` for the table and the anchor.
pub(super) fn slot_of(names: &Names, object: &Leftover) -> Option<Slot> {
    match object.kind {
        LeftoverKind::Link => names.slot_of_link(&object.name),
        LeftoverKind::Namespace => names.slot_of_netns(Path::new(&object.name)),
        LeftoverKind::Table => None,
    }
}

/// Names in a directory; none if it is not there.
fn entries(dir: &Path) -> Result<Vec<String>, NetworkError> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(NetworkError::io("list", dir.display())),
    }
}
