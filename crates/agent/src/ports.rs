//! Finding the virtio-serial ports by the names the host gave them.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

/// The port of the protocol.
pub(crate) const AGENT: &str = "coppice.agent";
/// The port that takes the program's output.
pub(crate) const LOG: &str = "coppice.log";

/// The host announces ports while the driver starts, a moment after its module is loaded.
const APPEAR: Duration = Duration::from_secs(20);
/// Time between two looks while the machine boots.
const LOOK: Duration = Duration::from_millis(2);

/// Opens the port called `name`, which may still have to appear.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let begun = Instant::now();
    loop {
        if let Some(device) = find(Path::new("/sys/class/virtio-ports"), name)? {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
            match rustix::fs::open(Path::new("/dev").join(device), flags, Mode::empty()) {
                Ok(fd) => return Ok(fd),
                Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if begun.elapsed() > APPEAR {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no virtio port {name}"),
            ));
        }
        std::thread::sleep(LOOK);
    }
}

fn find(class: &Path, name: &str) -> io::Result<Option<PathBuf>> {
    let entries = match fs::read_dir(class) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        // A port without a name has no such file.
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Ok(Some(entry.file_name().into()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (device, name) in [
            ("vport0p1", "coppice.agent\n"),
            ("vport0p2", "coppice.log\n"),
        ] {
            fs::create_dir(dir.path().join(device)).unwrap();
            fs::write(dir.path().join(device).join("name"), name).unwrap();
        }
        fs::create_dir(dir.path().join("vport0p3")).unwrap();
        assert_eq!(find(dir.path(), AGENT).unwrap(), Some("vport0p1".into()));
        assert_eq!(find(dir.path(), LOG).unwrap(), Some("vport0p2".into()));
        assert_eq!(find(dir.path(), "other").unwrap(), None);
        assert_eq!(find(&dir.path().join("none"), LOG).unwrap(), None);
    }
}
