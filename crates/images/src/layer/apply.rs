//! One layer after the other: what each entry means for the tree.

use std::cell::Cell;
use std::io::Read;
use std::path::Path;
use std::rc::Rc;

use tar::EntryType;

use super::attributes::Attributes;
use super::blob::{LayerBlob, LayerReader};
use super::path::{EntryPath, PathProblem};
use super::record::{Extensions, Record, RecordProblem};
use super::tree::{Place, Tree, TreeProblem};
use crate::{ImportError, Limit, Limits, Refusal};

/// Marks in names by which a layer deletes from the ones below.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names of this beginning were bookkeeping of a file system long gone.
const WHITEOUT_BOOKKEEPING: &[u8] = b".wh..wh.";

/// What all layers of an image may cost together, and have cost so far.
pub(crate) struct Budget<'a> {
    limits: &'a Limits,
    bytes_left: Rc<Cell<u64>>,
    entries: u64,
    names_bytes: u64,
}

impl<'a> Budget<'a> {
    pub(crate) fn new(limits: &'a Limits) -> Self {
        Self {
            limits,
            bytes_left: Rc::new(Cell::new(limits.unpacked_bytes)),
            entries: 0,
            names_bytes: 0,
        }
    }

    fn count_entries(&mut self, more: u64) -> Result<(), Problem> {
        self.entries += more;
        if self.entries > self.limits.entries {
            return Err(Problem::Exceeds(Limit::Entries));
        }
        Ok(())
    }

    /// Counts what a place costs beyond the entry itself.
    fn count_place(&mut self, place: &Place) -> Result<(), Problem> {
        self.count_entries(place.made())?;
        self.names_bytes += place.names_bytes();
        if self.names_bytes > self.limits.names_bytes {
            return Err(Problem::Exceeds(Limit::NamesBytes));
        }
        Ok(())
    }
}

/// Unpacks a layer over the ones below and verifies its digests. `dir` is the tree's directory, for
/// messages.
pub(crate) fn apply(
    tree: &mut Tree,
    dir: &Path,
    number: usize,
    blob: &LayerBlob,
    budget: &mut Budget<'_>,
) -> Result<(), ImportError> {
    let mut reader = blob.open(budget.limits, Rc::clone(&budget.bytes_left))?;
    let limit_met = reader.limit_met();
    tree.begin_layer();
    let mut layer = Layer {
        tree,
        budget,
        entry: blob.name.clone(),
    };
    let outcome = layer
        .read(&mut reader)
        .and_then(|()| match reader.finish(blob) {
            Err(ImportError::Read(source)) => Err(Problem::Stream(source)),
            other => other.map_err(Problem::Import),
        });
    let entry = layer.entry;
    outcome.map_err(|problem| match (limit_met.get(), problem) {
        // The reader failed because of a limit, whatever it looked like to those above it.
        (Some(limit), _) | (None, Problem::Exceeds(limit)) => budget.limits.exceeded(limit, entry),
        (None, Problem::Refused(reason)) => ImportError::Refused {
            layer: number,
            entry,
            reason,
        },
        (None, Problem::Stream(source)) => ImportError::LayerDamaged {
            layer: number,
            entry,
            source,
        },
        (None, Problem::Disk(source)) => ImportError::io("unpack a layer to", dir)(source),
        (None, Problem::Import(error)) => error,
    })
}

struct Layer<'a, 'b> {
    tree: &'a mut Tree,
    budget: &'a mut Budget<'b>,
    /// The entry being worked on, for messages.
    entry: String,
}

enum Problem {
    Refused(Refusal),
    Exceeds(Limit),
    Stream(std::io::Error),
    Disk(std::io::Error),
    Import(ImportError),
}

impl Layer<'_, '_> {
    fn read(&mut self, reader: &mut LayerReader) -> Result<(), Problem> {
        let mut archive = tar::Archive::new(reader);
        let entries = archive.entries().map_err(Problem::Stream)?.raw(true);
        let mut extensions = Extensions::default();
        for entry in entries {
            let mut entry = entry.map_err(Problem::Stream)?;
            self.entry = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
            self.budget.count_entries(1)?;
            if extensions.absorb(&mut entry)? {
                continue;
            }
            let record = std::mem::take(&mut extensions).complete(entry.header())?;
            self.entry = String::from_utf8_lossy(&record.name).into_owned();
            let kind = entry.header().entry_type();
            self.apply(kind, &record, &mut entry)?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        kind: EntryType,
        record: &Record,
        body: &mut dyn Read,
    ) -> Result<(), Problem> {
        let limits = self.budget.limits;
        if record.size > limits.file_bytes {
            return Err(Problem::Exceeds(Limit::FileBytes));
        }
        let attributes = Attributes {
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            extended: &record.attributes,
        };
        let path = EntryPath::parse(&record.name, limits)?;
        let Some((parent, name)) = path.split_last() else {
            return match kind {
                EntryType::Directory => Ok(self.tree.put_root(attributes)?),
                _ => Err(Refusal::ReplacesRoot.into()),
            };
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(parent, name);
        }
        let place = self.tree.place(parent, name, true)?;
        self.budget.count_place(&place)?;
        match kind {
            EntryType::Regular | EntryType::Continuous => {
                // Reading fails for other reasons than writing, and is told by what the body notes.
                let mut body = Noting { body, failed: None };
                match self.tree.put_file(&place, attributes, &mut body) {
                    Err(_) if body.failed.is_some() => {
                        let kind = body.failed.unwrap_or(std::io::ErrorKind::Other);
                        return Err(Problem::Stream(kind.into()));
                    }
                    other => other?,
                }
            }
            EntryType::Directory => self.tree.put_directory(&place, attributes)?,
            EntryType::Symlink => {
                check_link(&record.link, limits)?;
                self.tree.put_symlink(&place, attributes, &record.link)?;
            }
            EntryType::Fifo => self.tree.put_fifo(&place, attributes)?,
            EntryType::Link => {
                let target = EntryPath::parse(&record.link, limits)?;
                let (parent, name) = target.split_last().ok_or(Refusal::HardLinkToDirectory)?;
                let target = match self.tree.place(parent, name, false) {
                    Err(TreeProblem::Failed(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                        return Err(Refusal::HardLinkTargetMissing.into());
                    }
                    other => other?,
                };
                self.tree.put_hard_link(&place, &target)?;
            }
            // The guest has its own devices in /dev, so nothing is lost by leaving these out.
            EntryType::Char | EntryType::Block if place.is_below(b"dev") => {}
            EntryType::Char | EntryType::Block => return Err(Refusal::DeviceNode.into()),
            EntryType::GNUSparse => return Err(Refusal::Sparse.into()),
            other => return Err(Refusal::UnknownType(other.as_byte()).into()),
        }
        Ok(())
    }

    fn whiteout(&mut self, parent: &[Vec<u8>], name: &[u8]) -> Result<(), Problem> {
        if name == OPAQUE {
            return Ok(self.tree.delete_lower_inside(parent)?);
        }
        if name.starts_with(WHITEOUT_BOOKKEEPING) {
            return Ok(());
        }
        let deleted = &name[WHITEOUT.len()..];
        if matches!(deleted, b"" | b"." | b"..") {
            return Err(Refusal::BadWhiteout.into());
        }
        match self.tree.place(parent, deleted, false) {
            Ok(place) => Ok(self.tree.delete_lower(&place)?),
            // Nothing is there to delete.
            Err(TreeProblem::Failed(e)) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(TreeProblem::Refused(Refusal::ParentNotDirectory)) => Ok(()),
            Err(problem) => Err(problem.into()),
        }
    }
}

/// Refuses what can be no link at all. Where it leads is judged when something follows it.
fn check_link(target: &[u8], limits: &Limits) -> Result<(), Problem> {
    if target.is_empty() || target.contains(&0) {
        return Err(Refusal::NoPath.into());
    }
    if target.len() as u64 > limits.path_bytes {
        return Err(Problem::Exceeds(Limit::PathBytes));
    }
    Ok(())
}

/// Passes a body on and keeps whether reading it failed.
struct Noting<'a> {
    body: &'a mut dyn Read,
    failed: Option<std::io::ErrorKind>,
}

impl Read for Noting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let result = self.body.read(buffer);
        if let Err(error) = &result {
            self.failed = Some(error.kind());
        }
        result
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<TreeProblem> for Problem {
    fn from(problem: TreeProblem) -> Self {
        match problem {
            TreeProblem::Refused(refusal) => Self::Refused(refusal),
            // A name that came from the target of a link.
            TreeProblem::Failed(error) if error.kind() == std::io::ErrorKind::InvalidFilename => {
                Self::Refused(Refusal::NameTooLong)
            }
            TreeProblem::Failed(error) => Self::Disk(error),
        }
    }
}

impl From<PathProblem> for Problem {
    fn from(problem: PathProblem) -> Self {
        match problem {
            PathProblem::Refused(refusal) => Self::Refused(refusal),
            PathProblem::Exceeds(limit) => Self::Exceeds(limit),
        }
    }
}

impl From<RecordProblem> for Problem {
    fn from(problem: RecordProblem) -> Self {
        match problem {
            RecordProblem::Refused(refusal) => Self::Refused(refusal),
            RecordProblem::Stream(error) => Self::Stream(error),
        }
    }
}
