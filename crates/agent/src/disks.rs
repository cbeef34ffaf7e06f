//! Which disk of a machine is which.
//!
//! Not by their order, which differs between machine models. QEMU gives disks the serials `root` and
//! `disk`. Firecracker makes serials of its own, but tells which disk may not be written to; so there
//! the image is the read-only one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Disks appear a moment after their driver was loaded.
const APPEAR: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);

/// What a disk is to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The image, shared by many machines.
    Root,
    /// The machine's own disk.
    Disk,
}

impl Role {
    /// The role of a disk with this serial. One without is none of ours.
    fn of(serial: &str, read_only: bool) -> Option<Self> {
        match (serial, read_only) {
            ("", _) => None,
            ("root", _) => Some(Role::Root),
            ("disk", _) => Some(Role::Disk),
            (_, true) => Some(Role::Root),
            (_, false) => Some(Role::Disk),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::Root => "read-only disk with the image",
            Role::Disk => "disk to write to",
        }
    }
}

/// The device of the disk with this role, as soon as it is there.
pub(crate) fn wait_for(role: Role) -> io::Result<String> {
    let began = Instant::now();
    loop {
        if let Some(device) = find(Path::new("/sys/block"), Path::new("/dev"), role)? {
            return Ok(device.display().to_string());
        }
        if began.elapsed() > APPEAR {
            let what = format!("the machine has no {}", role.name());
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        std::thread::sleep(LOOK);
    }
}

fn find(disks: &Path, devices: &Path, role: Role) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(disks)? {
        let entry = entry?;
        // Disks of other kinds have no serial there.
        let fact = |name| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let is = Role::of(fact("serial").trim_end(), fact("ro").trim_end() == "1");
        let device = devices.join(entry.file_name());
        if is == Some(role) && device.exists() {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these disks: name, serial, and whether it is read-only.
    fn roles(disks: &[(&str, &str, &str)]) -> [Option<String>; 2] {
        let dir = tempfile::tempdir().unwrap();
        let (sys, dev) = (dir.path().join("sys"), dir.path().join("dev"));
        fs::create_dir(&dev).unwrap();
        for (name, serial, ro) in disks {
            fs::create_dir_all(sys.join(name)).unwrap();
            fs::write(sys.join(name).join("serial"), serial).unwrap();
            fs::write(sys.join(name).join("ro"), ro).unwrap();
            fs::write(dev.join(name), "").unwrap();
        }
        [Role::Root, Role::Disk].map(|role| {
            let device = find(&sys, &dev, role).unwrap()?;
            Some(device.file_name()?.to_str()?.to_owned())
        })
    }

    fn named(root: &str, disk: &str) -> [Option<String>; 2] {
        [root, disk].map(|name| Some(name.to_owned()))
    }

    #[test]
    fn serials_of_the_host_decide() {
        let disks = [("vda", "disk\n", "0\n"), ("vdb", "root\n", "0\n")];
        assert_eq!(roles(&disks), named("vdb", "vda"));
    }

    #[test]
    fn with_serials_that_say_nothing_the_one_that_cannot_be_written_to_is_the_image() {
        for (first, second) in [("1", "0"), ("0", "1")] {
            let disks = [
                ("vda", "6503105821\n", first),
                ("vdb", "6503105822\n", second),
            ];
            let (root, disk) = if first == "1" {
                ("vda", "vdb")
            } else {
                ("vdb", "vda")
            };
            assert_eq!(roles(&disks), named(root, disk));
        }
    }

    /// The serial of a disk that is just coming cannot be read yet.
    #[test]
    fn a_disk_without_a_serial_is_waited_for_and_not_guessed_at() {
        let disks = [("vda", "", "1\n"), ("loop0", "", "0\n")];
        assert_eq!(roles(&disks), [None, None]);
    }
}
