//! Hot pages: what forks of an image touch first, recorded from their faults and kept for later forks.
//!
//! The file belongs to an image by its id, lies beside it, and is only ever a hint: without it, or with a wrong one,
//! forks are slower and nothing else.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use memory::{ImageId, Run};
use serde::{Deserialize, Serialize};

/// Version of the file that this program writes and reads.
const VERSION: u32 = 1;
/// Runs kept for a phase. At 16 pages each, 1 GiB of working set.
const MAX_RUNS: usize = 16 << 10;
/// Longest file read.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Recordings that are put together; later forks only confirm what these have found.
pub const ENOUGH_RECORDINGS: u32 = 3;

/// A point in the life of a fork up to which its faults belong to one phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// The guest's agent has answered.
    Ready,
    /// The first command has given its result.
    FirstExec,
}

/// Pages in the order in which they were wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HotPages {
    /// Number of forks that were watched.
    pub recordings: u32,
    /// Wanted before [`Mark::Ready`], as (first page, number of pages).
    pub ready: Vec<(u64, u64)>,
    /// Wanted after that and before [`Mark::FirstExec`].
    pub exec: Vec<(u64, u64)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u32,
    image_id: ImageId,
    hot_pages: HotPages,
}

impl HotPages {
    /// What one fork has touched by the time that it was ready, and by the end of its first command, where no order is
    /// known but that.
    #[must_use]
    pub fn seen(by_ready: &[Run], by_exec: &[Run]) -> Self {
        let pairs = |runs: &[Run]| runs.iter().map(|run| (run.first, run.count)).collect();
        let mut clean = Self::default();
        clean.merge(&Self {
            recordings: 1,
            ready: pairs(by_ready),
            exec: pairs(by_exec),
        });
        clean
    }

    /// Everything in order, inside `pages` pages of RAM; what lies outside is left out.
    pub fn runs(&self, pages: u64) -> impl Iterator<Item = Run> {
        let runs = self.ready.iter().chain(&self.exec);
        runs.filter_map(move |&(first, count)| {
            let count = count.min(pages.checked_sub(first)?);
            (count > 0).then_some(Run { first, count })
        })
    }

    /// Pages in all runs.
    #[must_use]
    pub fn page_count(&self) -> u64 {
        let runs = self.ready.iter().chain(&self.exec);
        runs.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds what another fork touched: its pages that are not known yet, after those that are.
    pub fn merge(&mut self, other: &Self) {
        let mut known = Vec::new();
        let mut add = |into: &mut Vec<(u64, u64)>, from: &[(u64, u64)]| {
            for &run in from {
                for run in unknown(&known, run) {
                    if into.len() < MAX_RUNS {
                        into.push(run);
                    }
                }
                insert(&mut known, run);
            }
        };
        let (mut ready, mut exec) = (Vec::new(), Vec::new());
        add(&mut ready, &self.ready);
        add(&mut ready, &other.ready);
        add(&mut exec, &self.exec);
        add(&mut exec, &other.exec);
        *self = Self {
            recordings: self.recordings.saturating_add(other.recordings),
            ready,
            exec,
        };
    }

    /// Where the hot pages of `image_id` lie in `dir`.
    #[must_use]
    pub fn path(dir: &Path, image_id: &ImageId) -> PathBuf {
        dir.join(format!("{image_id}.hot_pages"))
    }

    /// Reads the file of `image_id` in `dir`. `None` if there is none, or none that can be used.
    pub fn load(dir: &Path, image_id: &ImageId) -> io::Result<Option<Self>> {
        let path = Self::path(dir, image_id);
        let usable = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?.len() <= MAX_FILE_BYTES,
        };
        let text = if usable { fs::read(&path)? } else { Vec::new() };
        match serde_json::from_slice::<Envelope>(&text) {
            Ok(found) if found.version == VERSION && found.image_id == *image_id => {
                Ok(Some(found.hot_pages))
            }
            _ => {
                tracing::warn!(path = %path.display(), "hot pages are not used: the file is damaged or of another image");
                Ok(None)
            }
        }
    }

    /// Writes the file of `image_id` in `dir`, replacing an older one whole.
    pub fn save(&self, dir: &Path, image_id: &ImageId) -> io::Result<()> {
        let path = Self::path(dir, image_id);
        let part = path.with_extension("part");
        let envelope = Envelope {
            version: VERSION,
            image_id: image_id.clone(),
            hot_pages: self.clone(),
        };
        let mut file = fs::File::create(&part)?;
        file.write_all(&serde_json::to_vec(&envelope)?)?;
        // Not synced: after a power failure the file may be gone, which costs a recording.
        fs::rename(&part, &path)
    }

    /// Removes the file of `image_id`; none is as good.
    pub fn remove(dir: &Path, image_id: &ImageId) -> io::Result<()> {
        match fs::remove_file(Self::path(dir, image_id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

/// The parts of `run` that are not in `known`, which is ordered and disjoint.
fn unknown(known: &[(u64, u64)], (first, count): (u64, u64)) -> Vec<(u64, u64)> {
    let end = first.saturating_add(count);
    let mut at = first;
    let mut parts = Vec::new();
    let nth = known.partition_point(|(known, count)| known + count <= first);
    for (known, count) in &known[nth..] {
        if *known >= end {
            break;
        }
        if at < *known {
            parts.push((at, known - at));
        }
        at = known + count;
    }
    if at < end {
        parts.push((at, end - at));
    }
    parts
}

/// Adds the parts of `run` that are missing in `known`.
fn insert(known: &mut Vec<(u64, u64)>, run: (u64, u64)) {
    for part in unknown(known, run) {
        let nth = known.partition_point(|other| other.0 < part.0);
        known.insert(nth, part);
    }
}

/// Watches the faults of one fork.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    ready: Vec<(u64, u64)>,
    exec: Vec<(u64, u64)>,
    is_ready: bool,
}

impl Recorder {
    /// Notes that `run` was filled for a fault.
    pub(crate) fn note(&mut self, run: Run) {
        let runs = if self.is_ready {
            &mut self.exec
        } else {
            &mut self.ready
        };
        if let Some((first, count)) = runs.last_mut()
            && *first + *count == run.first
        {
            *count += run.count;
        } else if runs.len() < MAX_RUNS {
            runs.push((run.first, run.count));
        }
    }

    /// Notes that the guest is ready.
    pub(crate) fn ready(&mut self) {
        self.is_ready = true;
    }

    /// Ends the recording.
    pub(crate) fn finish(self) -> HotPages {
        let mut clean = HotPages::default();
        clean.merge(&HotPages {
            recordings: 1,
            ready: self.ready,
            exec: self.exec,
        });
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_and_pages_come_once() {
        let mut recorder = Recorder::default();
        for (first, count) in [(50, 4), (54, 2), (0, 3), (51, 2)] {
            recorder.note(Run { first, count });
        }
        recorder.ready();
        for (first, count) in [(2, 4), (90, 1)] {
            recorder.note(Run { first, count });
        }
        let mut hot = recorder.finish();
        assert_eq!(hot.ready, [(50, 6), (0, 3)]);
        assert_eq!(hot.exec, [(3, 3), (90, 1)]);
        hot.merge(&HotPages {
            recordings: 1,
            ready: vec![(48, 10), (90, 2)],
            exec: vec![(3, 3)],
        });
        assert_eq!(hot.recordings, 2);
        assert_eq!(hot.ready, [(50, 6), (0, 3), (48, 2), (56, 2), (90, 2)]);
        assert_eq!(hot.exec, [(3, 3)]);
        let wanted = [(50, 6), (0, 3), (48, 2), (56, 2), (90, 1), (3, 3)];
        let runs: Vec<_> = hot.runs(91).map(|run| (run.first, run.count)).collect();
        assert_eq!(runs, wanted, "pages outside of RAM are left out");
    }

    #[test]
    fn what_was_there_at_the_first_mark_belongs_to_it() {
        let run = |first, count| Run { first, count };
        let hot = HotPages::seen(&[run(2, 4), run(30, 1)], &[run(0, 8), run(29, 4)]);
        assert_eq!(hot.recordings, 1);
        assert_eq!(hot.ready, [(2, 4), (30, 1)]);
        assert_eq!(hot.exec, [(0, 2), (6, 2), (29, 1), (31, 2)]);
    }

    #[test]
    fn a_file_is_read_for_its_image_only() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (ImageId::random().unwrap(), ImageId::random().unwrap());
        let hot = HotPages {
            recordings: 1,
            ready: vec![(1, 2)],
            exec: vec![],
        };
        assert_eq!(HotPages::load(dir.path(), &one).unwrap(), None);
        hot.save(dir.path(), &one).unwrap();
        assert_eq!(HotPages::load(dir.path(), &one).unwrap(), Some(hot));
        fs::copy(
            HotPages::path(dir.path(), &one),
            HotPages::path(dir.path(), &other),
        )
        .unwrap();
        assert_eq!(HotPages::load(dir.path(), &other).unwrap(), None);
        HotPages::remove(dir.path(), &one).unwrap();
        HotPages::remove(dir.path(), &one).unwrap();
        assert_eq!(HotPages::load(dir.path(), &one).unwrap(), None);
    }
}
