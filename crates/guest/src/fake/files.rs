//! A tree of files in memory. Paths are absolute and are not resolved through links, but for the
//! last part.

use std::collections::BTreeMap;

use protocol::{
    EntryHeader, EntryKind, Failure, FailureKind, Owner, PathFacts, PathInfo, PathKind, UploadKind,
    UploadSpec,
};
use serde::{Deserialize, Serialize};

const FILE_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Everything but the root directory, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Files {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Node {
    content: Content,
    mode: u32,
    owner: Owner,
    mtime: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Content {
    File(Vec<u8>),
    Directory,
    Symlink(String),
}

impl Files {
    pub(super) fn stat(&self, path: &str, follow: bool) -> Result<PathInfo, Failure> {
        let path = normalise(path)?;
        let Some(node) = self.node(&path, follow) else {
            return Ok(PathInfo::Missing);
        };
        let (kind, size, link_target) = match &node.content {
            Content::File(bytes) => (PathKind::File, bytes.len(), None),
            Content::Directory => (PathKind::Directory, 0, None),
            Content::Symlink(target) => (PathKind::Symlink, target.len(), Some(target.clone())),
        };
        Ok(PathInfo::Found(PathFacts {
            kind,
            mode: node.mode,
            size: size as u64,
            owner: node.owner,
            mtime: node.mtime,
            link_target,
        }))
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>, Failure> {
        let path = normalise(path)?;
        match self.node(&path, true).map(|node| node.content) {
            Some(Content::File(bytes)) => Ok(bytes),
            Some(Content::Directory | Content::Symlink(_)) => {
                Err(Failure::new(FailureKind::IsDirectory, "is no file").at(path))
            }
            None => Err(Failure::new(FailureKind::NotFound, "No such file or directory").at(path)),
        }
    }

    /// What must hold before an upload may begin.
    pub(super) fn check(&self, spec: &UploadSpec) -> Result<(), Failure> {
        let path = normalise(&spec.path)?;
        for parent in parents(&path) {
            match self.node(parent, true).map(|node| node.content) {
                Some(Content::Directory) | None => {}
                Some(Content::File(_) | Content::Symlink(_)) => {
                    return Err(
                        Failure::new(FailureKind::NotDirectory, "is not a directory").at(parent),
                    );
                }
            }
        }
        match (self.node(&path, true).map(|node| node.content), &spec.kind) {
            (Some(Content::Directory), UploadKind::File | UploadKind::Symlink { .. }) => {
                Err(Failure::new(FailureKind::IsDirectory, "is a directory").at(path))
            }
            (Some(Content::File(_) | Content::Symlink(_)), UploadKind::Directory) => {
                Err(Failure::new(FailureKind::NotDirectory, "is not a directory").at(path))
            }
            (Some(_) | None, _) => Ok(()),
        }
    }

    pub(super) fn write(&mut self, spec: &UploadSpec, bytes: Vec<u8>) -> Result<(), Failure> {
        self.check(spec)?;
        let path = normalise(&spec.path)?;
        for parent in parents(&path) {
            self.nodes
                .entry(parent.to_owned())
                .or_insert_with(Node::directory);
        }
        let old = self.node(&path, true);
        let (content, default_mode) = match &spec.kind {
            UploadKind::File => (Content::File(bytes), FILE_MODE),
            UploadKind::Directory => (Content::Directory, DIRECTORY_MODE),
            UploadKind::Symlink { target } => (Content::Symlink(target.clone()), 0o777),
        };
        let node = Node {
            content,
            mode: spec
                .mode
                .or(old.as_ref().map(|node| node.mode))
                .unwrap_or(default_mode),
            owner: spec
                .owner
                .or(old.as_ref().map(|node| node.owner))
                .unwrap_or_default(),
            mtime: spec.mtime.unwrap_or(0),
        };
        if path != "/" {
            self.nodes.insert(path, node);
        }
        Ok(())
    }

    /// The entries of a download, parents first, with their content.
    pub(super) fn tree(
        &self,
        path: &str,
        follow: bool,
    ) -> Result<Vec<(EntryHeader, Vec<u8>)>, Failure> {
        let path = normalise(path)?;
        let name = path
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("rootfs")
            .to_owned();
        let Some(top) = self.node(&path, follow) else {
            return Err(Failure::new(FailureKind::NotFound, "No such file or directory").at(path));
        };
        let mut entries = vec![top.entry(name.clone())];
        let below = if path == "/" {
            "/".to_owned()
        } else {
            format!("{path}/")
        };
        for (inner, _) in self.nodes.range(below.clone()..) {
            let Some(rest) = inner.strip_prefix(&below) else {
                break;
            };
            if let Some(node) = self.node(inner, follow) {
                entries.push(node.entry(format!("{name}/{rest}")));
            }
        }
        Ok(entries)
    }

    fn node(&self, path: &str, follow: bool) -> Option<Node> {
        if path == "/" {
            return Some(Node::directory());
        }
        let node = self.nodes.get(path)?;
        match &node.content {
            Content::Symlink(target) if follow => {
                let target = match target.starts_with('/') {
                    true => target.clone(),
                    false => format!(
                        "{}/{target}",
                        path.rsplit_once('/').map_or("", |(parent, _)| parent)
                    ),
                };
                self.nodes.get(&target).cloned()
            }
            _ => Some(node.clone()),
        }
    }
}

impl Node {
    fn directory() -> Self {
        Node {
            content: Content::Directory,
            mode: DIRECTORY_MODE,
            owner: Owner::default(),
            mtime: 0,
        }
    }

    fn entry(self, path: String) -> (EntryHeader, Vec<u8>) {
        let (kind, bytes) = match self.content {
            Content::File(bytes) => (
                EntryKind::File {
                    size: bytes.len() as u64,
                },
                bytes,
            ),
            Content::Directory => (EntryKind::Directory, Vec::new()),
            Content::Symlink(target) => (EntryKind::Symlink { target }, Vec::new()),
        };
        (
            EntryHeader {
                path,
                kind,
                mode: self.mode,
                owner: self.owner,
                mtime: self.mtime,
            },
            bytes,
        )
    }
}

/// The absolute path without empty, `.` and `..` parts.
fn normalise(path: &str) -> Result<String, Failure> {
    if !path.starts_with('/') {
        return Err(Failure::new(FailureKind::Invalid, "path is not absolute").at(path));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// All directories above a path, outermost first, without the root.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').skip(1).map(|(end, _)| &path[..end])
}
