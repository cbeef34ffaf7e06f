//! Names of what is made on a host. Each carries the mark.

use std::path::{Path, PathBuf};

use crate::{Config, Mark, Slot};

/// First letters of the interfaces on the host, one for each slot.
const LINK: &str = "cp";
/// First letters of the interface that holds the host's address.
const ANCHOR: &str = "ch";
/// First letters of tables of nftables.
const TABLE: &str = "coppice_";
/// Digits of a mark.
const MARK: usize = 8;

/// Names of one daemon's objects.
#[derive(Debug, Clone)]
pub struct Names {
    mark: Mark,
    run_root: PathBuf,
}

impl Names {
    /// Names under which a network with this configuration makes things.
    pub fn new(config: &Config) -> Self {
        Self {
            mark: config.mark.clone(),
            run_root: config.run_root.clone(),
        }
    }

    /// The mark.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Directory shared by all daemons.
    pub fn run_root(&self) -> &Path {
        &self.run_root
    }

    /// Directory of this daemon below the shared one.
    pub fn run_dir(&self) -> PathBuf {
        self.run_root.join(self.mark.as_str())
    }

    /// Directory of the namespaces.
    pub fn netns_dir(&self) -> PathBuf {
        self.run_dir().join("netns")
    }

    /// Namespace of a slot.
    pub fn netns(&self, slot: Slot) -> PathBuf {
        self.netns_dir().join(slot.to_string())
    }

    /// Host's end of the veth of a slot. At most 15 bytes, as the kernel wants it.
    pub fn link(&self, slot: Slot) -> String {
        format!("{LINK}{}{:x}", self.mark, slot.0)
    }

    /// What the names of all these ends begin with.
    pub fn link_prefix(&self) -> String {
        format!("{LINK}{}", self.mark)
    }

    /// Slot whose link this is.
    pub fn slot_of_link(&self, name: &str) -> Option<Slot> {
        let digits = name.strip_prefix(&self.link_prefix())?;
        let slot = Slot(u32::from_str_radix(digits, 16).ok()?);
        (self.link(slot) == name).then_some(slot)
    }

    /// Slot whose namespace is in a file of this name.
    pub fn slot_of_netns(&self, path: &Path) -> Option<Slot> {
        let name = path.file_name()?.to_str()?;
        let slot = Slot(name.parse().ok()?);
        (slot.to_string() == name).then_some(slot)
    }

    /// Interface with the host's address towards guests.
    pub fn anchor(&self) -> String {
        format!("{ANCHOR}{}", self.mark)
    }

    /// Table of nftables.
    pub fn table(&self) -> String {
        format!("{TABLE}{}", self.mark)
    }
}

/// Mark of the daemon that made this interface, if it was one of ours.
pub fn link_mark(name: &str) -> Option<Mark> {
    let rest = name
        .strip_prefix(LINK)
        .or_else(|| name.strip_prefix(ANCHOR))?;
    let (mark, slot) = rest.split_at_checked(MARK)?;
    let anchor = name.starts_with(ANCHOR);
    let hex = !slot.is_empty() && slot.bytes().all(|byte| byte.is_ascii_hexdigit());
    if anchor == slot.is_empty() && (anchor || hex) {
        mark.parse().ok()
    } else {
        None
    }
}

/// Mark of the daemon that made this table, if it was one of ours.
pub fn table_mark(name: &str) -> Option<Mark> {
    name.strip_prefix(TABLE)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    fn names() -> Names {
        Names::new(&Config::new(
            "00c0ffee".parse().unwrap(),
            "/run/coppice".into(),
        ))
    }

    #[test]
    fn every_link_of_the_largest_pool_has_a_name_the_kernel_takes() {
        let names = names();
        let pool: Pool = "10.16.0.0/12".parse().unwrap();
        let last = pool.slots().last().unwrap();
        let name = names.link(last);
        assert!(name.len() <= 15, "{name}");
        assert_eq!(names.slot_of_link(&name), Some(last));
        assert_eq!(link_mark(&name).as_ref(), Some(names.mark()));
    }

    #[test]
    fn foreign_names_are_not_taken_for_ours() {
        let names = names();
        for name in [
            "eth0",
            "cp00c0ffee",
            "cp00c0ffee0a",
            "cp00c0ffeezz",
            "cp11c0ffee2",
            "ch00c0ffee",
        ] {
            assert_eq!(names.slot_of_link(name), None, "{name}");
        }
        for name in ["cpu0", "chaos", "cp00C0FFEE2", "ch00c0ffee2", "cp00c0ffee"] {
            assert_eq!(link_mark(name), None, "{name}");
        }
        assert!(link_mark("ch00c0ffee").is_some());
        assert!(table_mark("coppice_00c0ffee").is_some());
        assert!(table_mark("coppice_notes").is_none());
        assert_eq!(names.slot_of_netns(Path::new("/a/007")), None);
        assert_eq!(names.slot_of_netns(Path::new("/a/7")), Some(Slot(7)));
    }
}
