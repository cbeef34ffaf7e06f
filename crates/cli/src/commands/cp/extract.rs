//! Writes what a guest sends to files here.
//!
//! The guest is not trusted: nothing is written outside of the target. Entries
//! go only into directories that this copy has made or found to be real ones,
//! and files are opened without following links, so a link from the guest
//! cannot lead a later entry elsewhere.

use std::collections::HashSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use api::cp::CpHeader;
use rustix::fs::OFlags;

use super::Copied;
use crate::failure::Failure;

/// Permission bits that are kept; a guest cannot give set-uid files away.
const MODE_BITS: u32 = 0o777;

/// Puts entries below a target, which the first entry becomes.
pub(super) struct Extractor {
    target: PathBuf,
    directories: HashSet<PathBuf>,
    /// Set at the end, since a directory may be closed to its owner too.
    modes: Vec<(PathBuf, u32)>,
    open: Option<Open>,
    copied: Copied,
}

struct Open {
    file: File,
    path: PathBuf,
    modified: SystemTime,
}

impl Extractor {
    pub(super) fn new(target: PathBuf) -> Self {
        Self {
            target,
            directories: HashSet::new(),
            modes: Vec::new(),
            open: None,
            copied: Copied::default(),
        }
    }

    pub(super) fn begin(&mut self, header: &CpHeader) -> Result<(), Failure> {
        let path = self.place(&header.path)?;
        if header.is_dir {
            self.directory(path, header.mode)
        } else if header.is_symlink {
            let leads_to = header.link_target.as_deref().unwrap_or_default();
            symlink(leads_to, &path).map_err(|error| unwritable(&path, error))?;
            self.copied.files += 1;
            Ok(())
        } else {
            self.file(path, header)
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<(), Failure> {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        open.file
            .write_all(data)
            .map_err(|error| unwritable(&open.path, error))?;
        self.copied.bytes += data.len() as u64;
        Ok(())
    }

    pub(super) fn end(&mut self) -> Result<(), Failure> {
        let Some(open) = self.open.take() else {
            return Ok(());
        };
        open.file
            .set_times(FileTimes::new().set_modified(open.modified))
            .map_err(|error| unwritable(&open.path, error))?;
        self.copied.files += 1;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Copied, Failure> {
        for (path, mode) in self.modes.iter().rev() {
            fs::set_permissions(path, Permissions::from_mode(*mode))
                .map_err(|error| unwritable(path, error))?;
        }
        Ok(self.copied)
    }

    /// Where an entry goes. Its path begins with the name of what was asked
    /// for, which the target stands for.
    fn place(&self, path: &str) -> Result<PathBuf, Failure> {
        let refuse = || Failure::plain(format!("the instance sent the unsafe path {path:?}"));
        let mut place = self.target.clone();
        let mut parts = Path::new(path).components();
        let Some(Component::Normal(_)) = parts.next() else {
            return Err(refuse());
        };
        for part in parts {
            let Component::Normal(name) = part else {
                return Err(refuse());
            };
            if !self.directories.contains(&place) {
                return Err(refuse());
            }
            place.push(name);
        }
        Ok(place)
    }

    fn directory(&mut self, path: PathBuf, mode: u32) -> Result<(), Failure> {
        match fs::create_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let real = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
                if !real {
                    return Err(unwritable(&path, error));
                }
            }
            Err(error) => return Err(unwritable(&path, error)),
        }
        self.modes.push((path.clone(), mode & MODE_BITS));
        self.directories.insert(path);
        self.copied.directories += 1;
        Ok(())
    }

    fn file(&mut self, path: PathBuf, header: &CpHeader) -> Result<(), Failure> {
        let mode = header.mode & MODE_BITS;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .and_then(|file| {
                // A file that was there keeps its bits otherwise, and a new
                // one loses those of the umask.
                file.set_permissions(Permissions::from_mode(mode))?;
                Ok(file)
            })
            .map_err(|error| unwritable(&path, error))?;
        self.open = Some(Open {
            file,
            path,
            // A guest may name any time; one that no clock can show is left out.
            modified: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(header.mtime))
                .unwrap_or(SystemTime::UNIX_EPOCH),
        });
        Ok(())
    }
}

/// Makes a link; one that is there already is replaced.
fn symlink(leads_to: &str, path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(path)?;
    }
    std::os::unix::fs::symlink(leads_to, path)
}

fn unwritable(path: &Path, error: io::Error) -> Failure {
    Failure::local(format!("cannot write {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> CpHeader {
        CpHeader {
            path: path.to_owned(),
            mode: 0o640,
            mtime: 1_000_000_000,
            ..CpHeader::default()
        }
    }

    fn directory(path: &str) -> CpHeader {
        CpHeader {
            is_dir: true,
            mode: 0o755,
            ..file(path)
        }
    }

    fn link(path: &str, leads_to: &str) -> CpHeader {
        CpHeader {
            is_symlink: true,
            link_target: Some(leads_to.to_owned()),
            ..file(path)
        }
    }

    #[test]
    fn a_tree_comes_out_as_it_was_sent() {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut extractor = Extractor::new(scratch.path().join("copy"));
        for (header, data) in [
            (directory("src"), ""),
            (file("src/a"), "hello"),
            (
                CpHeader {
                    mode: 0o500,
                    ..directory("src/closed")
                },
                "",
            ),
            (file("src/closed/b"), ""),
            (link("src/l", "a"), ""),
        ] {
            extractor.begin(&header).expect("a good entry");
            extractor.write(data.as_bytes()).expect("written");
            extractor.end().expect("complete");
        }
        let copied = extractor.finish().expect("complete");
        let expected = Copied {
            files: 3,
            directories: 2,
            bytes: 5,
        };
        assert_eq!(copied, expected);
        let a = scratch.path().join("copy/l");
        assert_eq!(fs::read_to_string(&a).expect("through the link"), "hello");
        let metadata = fs::metadata(&a).expect("there");
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640);
        let modified = metadata.modified().expect("a time");
        assert_eq!(
            modified,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)
        );
        let closed = fs::metadata(scratch.path().join("copy/closed")).expect("there");
        assert_eq!(closed.permissions().mode() & 0o7777, 0o500);
    }

    #[test]
    fn a_time_that_cannot_be_is_no_reason_to_fail() {
        let scratch = tempfile::tempdir().expect("a directory");
        let target = scratch.path().join("copy");
        let mut extractor = Extractor::new(target.clone());
        let late = CpHeader {
            mtime: u64::MAX,
            ..file("late")
        };
        extractor.begin(&late).expect("a good entry");
        extractor.end().expect("complete");
        let modified = fs::metadata(target).expect("there").modified();
        assert_eq!(modified.expect("a time"), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn nothing_is_written_elsewhere() {
        let scratch = tempfile::tempdir().expect("a directory");
        let outside = scratch.path().join("outside");
        fs::create_dir(&outside).expect("made");
        let outside = outside.to_str().expect("UTF-8");
        let target = scratch.path().join("copy");
        let mut extractor = Extractor::new(target);
        extractor.begin(&directory("src")).expect("the root");
        extractor.begin(&link("src/out", outside)).expect("a link");
        extractor
            .begin(&link("src/file", &format!("{outside}/file")))
            .expect("a link");
        for unsafe_entry in [
            file("/etc/x"),
            file("../x"),
            file("src/../../x"),
            file("src/out/x"),
            directory("src/out"),
            file("src/file"),
            file("src/missing/x"),
            file(""),
        ] {
            let path = unsafe_entry.path.clone();
            assert!(extractor.begin(&unsafe_entry).is_err(), "{path}");
        }
        let inside = fs::read_dir(outside).expect("still there").count();
        assert_eq!(inside, 0);
    }
}
