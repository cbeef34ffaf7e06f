//! A store in a temporary directory, and what is on its root disks.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::{Digest, ImageStore, ImportError, Imported, Limits};

use crate::archive::{Archive, Packing};

/// A store, and beside it a file that no import may touch.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

impl Host {
    /// None, with the reason printed, where images cannot be imported.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: importing images needs root");
            return None;
        }
        if Command::new("fsck.erofs").arg("--help").output().is_err() {
            println!("skipped: erofs-utils is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("canary"), "alive").unwrap();
        let store = ImageStore::open(&dir.path().join("images")).unwrap();
        Some(Self { dir, store })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn import(&self, archive: &Archive) -> Result<Imported, ImportError> {
        self.import_with(archive, &Limits::default())
    }

    pub(crate) fn import_with(
        &self,
        archive: &Archive,
        limits: &Limits,
    ) -> Result<Imported, ImportError> {
        self.store
            .import(archive.to_tar().as_slice(), limits, &mut |_| {})
    }

    /// Imports layers and lists what is then on the root disk.
    pub(crate) fn import_layers(&self, layers: &[Vec<u8>]) -> Listing {
        let imported = self.import(&Archive::oci(layers, Packing::Gzip)).unwrap();
        self.listing(&imported.digest)
    }

    /// Mode bits of a path as they stand on a root disk. The tools of erofs do not show set-uid bits,
    /// so the inode is read: it is 32 bytes times its number into the disk, its mode 4 bytes further.
    pub(crate) fn mode(&self, digest: &Digest, path: &str) -> u16 {
        let rootfs = self.store.rootfs(digest).unwrap();
        let dump = Command::new("dump.erofs")
            .arg(format!("--path={path}"))
            .arg(&rootfs)
            .output()
            .unwrap();
        let text = String::from_utf8(dump.stdout).unwrap();
        let number = text
            .split("NID: ")
            .nth(1)
            .unwrap()
            .split_whitespace()
            .next()
            .unwrap();
        let at = number.parse::<usize>().unwrap() * 32 + 4;
        let bytes = fs::read(rootfs).unwrap();
        u16::from_le_bytes([bytes[at], bytes[at + 1]])
    }

    pub(crate) fn listing(&self, digest: &Digest) -> Listing {
        let target = self.dir.path().join("extracted");
        let _ = fs::remove_dir_all(&target);
        let extract = Command::new("fsck.erofs")
            .arg(format!("--extract={}", target.display()))
            .arg("--preserve")
            .arg(self.store.rootfs(digest).unwrap())
            .output()
            .unwrap();
        assert!(
            extract.status.success(),
            "{}",
            String::from_utf8_lossy(&extract.stderr)
        );
        let mut found = BTreeMap::new();
        list(&target, &target, &mut found);
        Listing(found)
    }

    /// Nothing but whole images is in the store, and nothing outside was touched.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(fs::read_to_string(self.path("canary")).unwrap(), "alive");
        for entry in fs::read_dir(self.path("images")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                name == ".lock" || Digest::from_hex(&name).is_ok(),
                "left behind: {name}"
            );
        }
        let outside: Vec<_> = fs::read_dir(self.dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !["canary", "images", "extracted"].contains(&name.as_str()))
            .collect();
        assert!(outside.is_empty(), "outside of the store: {outside:?}");
    }
}

/// Every path of a root disk with a line about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing(pub(crate) BTreeMap<String, String>);

impl Listing {
    pub(crate) fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    pub(crate) fn line(&self, path: &str) -> &str {
        self.0.get(path).map_or("absent", String::as_str)
    }
}

fn list(top: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let owner = format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        let line = if meta.is_dir() {
            list(top, &path, found);
            format!("dir {owner}")
        } else if meta.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if meta.is_file() {
            let content = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            format!("file {owner} {content}")
        } else {
            format!("special {owner}")
        };
        let name = path
            .strip_prefix(top)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        found.insert(name, line);
    }
}
