//! The directory that layers are unpacked to.
//!
//! Layers come from strangers, so no path of theirs is ever given to the system whole. Every component
//! is looked up in the directory before it without following links; links are followed here, where
//! `/` means the image's root and a `..` that would leave it is refused. One import uses a tree at a
//! time, from one thread; nobody else knows the directory.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, proc_path, times};
use super::walk::{self, Found, file_type_at, open_directory};
use crate::{Limits, Refusal};

/// Files being put together from layers.
pub(crate) struct Tree {
    root: OwnedFd,
    most_depth: usize,
    /// What the present layer put here, and the directories above: its own deletions spare them.
    touched: HashSet<Vec<u8>>,
    /// Times of directories, which change again with every entry put into them.
    directory_times: BTreeMap<Vec<u8>, i64>,
}

/// Why the tree could not be changed.
#[derive(Debug)]
pub(super) enum TreeProblem {
    Refused(Refusal),
    Failed(io::Error),
}

impl From<Refusal> for TreeProblem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Errno> for TreeProblem {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

impl From<io::Error> for TreeProblem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// A place in the tree: a directory that exists, and a name in it that may not.
pub(super) struct Place {
    parent: OwnedFd,
    /// From the root, without links.
    path: Vec<u8>,
    name: Vec<u8>,
    made: u64,
}

impl Place {
    /// Directories that were made on the way to it.
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// At most how many bytes of paths it and those directories have.
    pub(super) fn names_bytes(&self) -> u64 {
        self.path.len() as u64 * (1 + self.made)
    }

    fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// Whether it is directly or deeper inside of the top-level directory `name`.
    pub(super) fn is_below(&self, name: &[u8]) -> bool {
        self.path
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(b"/"))
    }

    fn file_type(&self) -> Result<Option<FileType>, Errno> {
        file_type_at(&self.parent, self.name())
    }
}

impl Tree {
    /// Takes an empty directory.
    pub(crate) fn new(dir: &Path, limits: &Limits) -> io::Result<Self> {
        let root = fs::open(dir, walk::DIRECTORY, Mode::empty())?;
        Ok(Self {
            root,
            most_depth: usize::try_from(limits.path_depth).unwrap_or(usize::MAX),
            touched: HashSet::new(),
            directory_times: BTreeMap::new(),
        })
    }

    /// To be called before the entries of each layer.
    pub(crate) fn begin_layer(&mut self) {
        self.touched.clear();
    }

    /// Finds the place of an entry. Directories on the way that do not exist are made if `create`.
    pub(super) fn place(
        &self,
        parent: &[Vec<u8>],
        name: &[u8],
        create: bool,
    ) -> Result<Place, TreeProblem> {
        let Found {
            dir,
            mut path,
            made,
        } = walk::to_directory(self.root.as_fd(), parent, create, self.most_depth)?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        Ok(Place {
            parent: dir,
            path,
            name: name.to_vec(),
            made,
        })
    }

    /// Makes a directory, or gives an existing one new attributes.
    pub(super) fn put_directory(
        &mut self,
        place: &Place,
        attributes: Attributes<'_>,
    ) -> Result<(), TreeProblem> {
        if place.file_type()? != Some(FileType::Directory) {
            self.clear(place)?;
            fs::mkdirat(&place.parent, place.name(), Mode::RWXU)?;
        }
        self.directory_times
            .insert(place.path.clone(), attributes.mtime);
        self.finish(place, attributes, FileType::Directory)
    }

    /// Gives the root directory attributes.
    pub(super) fn put_root(&mut self, attributes: Attributes<'_>) -> Result<(), TreeProblem> {
        let root = Place {
            parent: self.root.try_clone()?,
            path: Vec::new(),
            name: b".".to_vec(),
            made: 0,
        };
        self.directory_times.insert(Vec::new(), attributes.mtime);
        self.finish(&root, attributes, FileType::Directory)
    }

    /// Writes a file. A file that was there is replaced, not overwritten: it may have other names.
    pub(super) fn put_file(
        &mut self,
        place: &Place,
        attributes: Attributes<'_>,
        body: &mut dyn Read,
    ) -> Result<(), TreeProblem> {
        self.clear(place)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = fs::openat(
            &place.parent,
            place.name(),
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?;
        io::copy(body, &mut File::from(file))?;
        self.finish(place, attributes, FileType::RegularFile)
    }

    /// Makes a symbolic link to wherever: it is followed in the guest, or by [`Tree::place`].
    pub(super) fn put_symlink(
        &mut self,
        place: &Place,
        attributes: Attributes<'_>,
        target: &[u8],
    ) -> Result<(), TreeProblem> {
        self.clear(place)?;
        fs::symlinkat(OsStr::from_bytes(target), &place.parent, place.name())?;
        self.finish(place, attributes, FileType::Symlink)
    }

    /// Makes a named pipe.
    pub(super) fn put_fifo(
        &mut self,
        place: &Place,
        attributes: Attributes<'_>,
    ) -> Result<(), TreeProblem> {
        self.clear(place)?;
        let mode = Mode::RUSR | Mode::WUSR;
        fs::mknodat(&place.parent, place.name(), FileType::Fifo, mode, 0)?;
        self.finish(place, attributes, FileType::Fifo)
    }

    /// Gives a file a second name. The link itself has no attributes.
    pub(super) fn put_hard_link(
        &mut self,
        place: &Place,
        target: &Place,
    ) -> Result<(), TreeProblem> {
        match target.file_type()? {
            None => return Err(Refusal::HardLinkTargetMissing.into()),
            Some(FileType::Directory) => return Err(Refusal::HardLinkToDirectory.into()),
            Some(_) if target.path == place.path => {
                self.touch(&place.path);
                return Ok(());
            }
            Some(_) => {}
        }
        self.clear(place)?;
        let (from, to) = (
            (&target.parent, target.name()),
            (&place.parent, place.name()),
        );
        match fs::linkat(from.0, from.1, to.0, to.1, AtFlags::empty()) {
            // Clearing the place removed the target, which was inside of it.
            Err(Errno::NOENT) => Err(Refusal::HardLinkTargetMissing.into()),
            other => {
                self.touch(&place.path);
                Ok(other?)
            }
        }
    }

    /// Deletes what lower layers have in a place; what the present layer put there stays.
    pub(super) fn delete_lower(&mut self, place: &Place) -> Result<(), TreeProblem> {
        if !self.touched.contains(&place.path) {
            return self.clear(place);
        }
        match place.file_type()? {
            Some(FileType::Directory) => {
                let dir = open_directory(place.parent.as_fd(), place.name())?;
                self.delete_lower_children(&dir, &place.path)
            }
            _ => Ok(()),
        }
    }

    /// Deletes what lower layers have in a directory, if it is there.
    pub(super) fn delete_lower_inside(&mut self, parent: &[Vec<u8>]) -> Result<(), TreeProblem> {
        match walk::to_directory(self.root.as_fd(), parent, false, self.most_depth) {
            Ok(found) => self.delete_lower_children(&found.dir, &found.path),
            Err(TreeProblem::Failed(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(problem) => Err(problem),
        }
    }

    /// Sets the times of all directories, to be called after the last layer.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        for (path, mtime) in std::mem::take(&mut self.directory_times) {
            // Paths in the map have no links, and nobody but us is in the tree.
            let path = if path.is_empty() {
                b"."
            } else {
                path.as_slice()
            };
            let times = times(mtime);
            match fs::utimensat(
                &self.root,
                OsStr::from_bytes(path),
                &times,
                AtFlags::SYMLINK_NOFOLLOW,
            ) {
                // A later layer deleted it, or put a file above where it was.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Makes a place empty.
    fn clear(&mut self, place: &Place) -> Result<(), TreeProblem> {
        match place.file_type()? {
            None => Ok(()),
            Some(FileType::Directory) => {
                std::fs::remove_dir_all(proc_path(&place.parent, place.name()))?;
                self.forget(&place.path);
                Ok(())
            }
            Some(_) => Ok(fs::unlinkat(&place.parent, place.name(), AtFlags::empty())?),
        }
    }

    /// Forgets what was known of a directory that is gone, so that another of its name starts anew.
    fn forget(&mut self, path: &[u8]) {
        let inside = |other: &[u8]| {
            other
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        self.directory_times.retain(|other, _| !inside(other));
    }

    fn delete_lower_children(&mut self, dir: &OwnedFd, path: &[u8]) -> Result<(), TreeProblem> {
        let readable = fs::openat(
            dir,
            c".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let mut names = Vec::new();
        for entry in fs::Dir::new(readable)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        for name in names {
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            self.delete_lower(&Place {
                parent: dir.try_clone()?,
                path: child,
                name,
                made: 0,
            })?;
        }
        Ok(())
    }

    /// Remembers that the present layer put something here.
    fn touch(&mut self, path: &[u8]) {
        let above = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| at);
        for end in above.chain([path.len()]) {
            if !self.touched.contains(&path[..end]) {
                self.touched.insert(path[..end].to_vec());
            }
        }
    }

    fn finish(
        &mut self,
        place: &Place,
        attributes: Attributes<'_>,
        kind: FileType,
    ) -> Result<(), TreeProblem> {
        self.touch(&place.path);
        attributes.set(&place.parent, place.name(), kind)
    }
}
