//! Where each page of an image comes from: the newest layer that holds it, or nowhere, which means zero. Pure.

use memory::Run;

/// Pages that follow each other in guest RAM and in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The pages.
    pub(crate) run: Run,
    /// Position of the layer, the full one is 0.
    pub(crate) layer: usize,
    /// How many pages the layer holds before the first of these.
    pub(crate) position: u64,
}

impl Extent {
    /// The part of it that lies in `run`.
    fn clip(self, run: Run) -> Self {
        let first = self.run.first.max(run.first);
        let end = self.run.end().min(run.end());
        Self {
            run: Run {
                first,
                count: end - first,
            },
            layer: self.layer,
            position: self.position + (first - self.run.first),
        }
    }
}

/// A piece of guest RAM with one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// In a layer.
    Data(Extent),
    /// In no layer.
    Zero(Run),
}

impl Piece {
    pub(crate) fn run(self) -> Run {
        match self {
            Self::Data(extent) => extent.run,
            Self::Zero(run) => run,
        }
    }
}

/// The origin of every page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pages: u64,
    extents: Vec<Extent>,
}

impl Layout {
    /// The layout of `pages` pages of RAM with these layers, the full one first; the runs of each are ordered,
    /// disjoint and inside.
    pub(crate) fn new<'a>(pages: u64, layers: impl IntoIterator<Item = &'a [Run]>) -> Self {
        let mut extents: Vec<Extent> = Vec::new();
        for (layer, runs) in layers.into_iter().enumerate() {
            extents = overlay(&extents, layer, runs);
        }
        Self { pages, extents }
    }

    /// Pages of RAM.
    pub(crate) fn pages(&self) -> u64 {
        self.pages
    }

    /// The pieces that `run` consists of, in order and without gaps.
    pub(crate) fn pieces(&self, run: Run) -> impl Iterator<Item = Piece> {
        let nth = self
            .extents
            .partition_point(|extent| extent.run.end() <= run.first);
        let mut rest = self.extents[nth..].iter().peekable();
        let mut at = run.first;
        std::iter::from_fn(move || {
            if at >= run.end() {
                return None;
            }
            let next = rest.peek().filter(|extent| extent.run.first < run.end());
            let piece = match next {
                Some(extent) if extent.run.first <= at => {
                    let extent = extent.clip(run);
                    rest.next();
                    Piece::Data(extent)
                }
                later => {
                    let end = later.map_or(run.end(), |extent| extent.run.first);
                    Piece::Zero(Run {
                        first: at,
                        count: end - at,
                    })
                }
            };
            at = piece.run().end();
            Some(piece)
        })
    }
}

/// The extents below with a layer's runs laid over them.
fn overlay(below: &[Extent], layer: usize, runs: &[Run]) -> Vec<Extent> {
    let mut result = Vec::with_capacity(below.len() + runs.len());
    let mut position = 0;
    let mut rest = below.iter().copied().peekable();
    for run in runs {
        // What lies before this run stays; what it covers goes; what sticks out behind it is looked at again.
        while let Some(extent) = rest.peek_mut() {
            if extent.run.first >= run.end() {
                break;
            }
            let whole = *extent;
            if whole.run.first < run.first {
                let before = Run {
                    first: whole.run.first,
                    count: run.first.min(whole.run.end()) - whole.run.first,
                };
                result.push(whole.clip(before));
            }
            if whole.run.end() > run.end() {
                *extent = whole.clip(Run {
                    first: run.end(),
                    count: whole.run.end() - run.end(),
                });
                break;
            }
            rest.next();
        }
        result.push(Extent {
            run: *run,
            layer,
            position,
        });
        position += run.count;
    }
    result.extend(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: u64 = 200;

    fn layer() -> impl Strategy<Value = Vec<Run>> {
        let run = (0..PAGES, 1_u64..40).prop_map(|(first, count)| Run {
            first,
            count: count.min(PAGES - first),
        });
        prop::collection::vec(run, 0..8).prop_map(memory::merge_runs)
    }

    proptest! {
        /// Each page on its own, from the layers one by one, is the reference.
        #[test]
        fn the_newest_layer_wins(
            layers in prop::collection::vec(layer(), 0..5),
            first in 0..PAGES,
            count in 1..PAGES,
        ) {
            let mut wanted = vec![None; PAGES as usize];
            for (layer, runs) in layers.iter().enumerate() {
                let pages = runs.iter().flat_map(|run| run.first..run.end());
                for (position, page) in pages.enumerate() {
                    wanted[page as usize] = Some((layer, position as u64));
                }
            }
            let layout = Layout::new(PAGES, layers.iter().map(Vec::as_slice));
            let run = Run { first, count: count.min(PAGES - first) };
            let mut found = Vec::new();
            for piece in layout.pieces(run) {
                prop_assert_eq!(piece.run().first, run.first + found.len() as u64);
                prop_assert!(piece.run().count > 0);
                for nth in 0..piece.run().count {
                    found.push(match piece {
                        Piece::Data(extent) => Some((extent.layer, extent.position + nth)),
                        Piece::Zero(_) => None,
                    });
                }
            }
            prop_assert_eq!(&found, &wanted[first as usize..run.end() as usize]);
        }
    }
}
