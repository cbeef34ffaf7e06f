//! What to fill for a fault, and ahead of faults. Pure: image, page state and a request give a list of deeds.

use memory::Run;

use crate::layout::{Extent, Layout, Piece};
use crate::regions::Region;
use crate::state::State;

/// How much is filled at once, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Batches {
    /// Around a fault, aligned to itself.
    pub(crate) fault_pages: u64,
    /// Around a fault on a page that is zero. Zeros cost no memory, so this may be more.
    pub(crate) zero_pages: u64,
}

/// One call to the kernel, or a few if pages are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Copy pages of a layer.
    Copy(Extent),
    /// Make pages zero.
    Zero(Run),
    /// Put one large host page together from whatever it consists of, and copy it.
    Compose(Run),
}

impl Fill {
    pub(crate) fn run(self) -> Run {
        match self {
            Self::Copy(extent) => extent.run,
            Self::Zero(run) | Self::Compose(run) => run,
        }
    }
}

/// What filling ahead is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Faults are to be avoided: zeros are filled too.
    Prefetch,
    /// The pager is to become needless: what is zero need not be filled, the kernel knows zeros by itself.
    Graduate,
}

/// What answers a fault on `page` in `region`: the page itself first, whatever its state says, then its missing
/// neighbours.
pub(crate) fn fault(
    layout: &Layout,
    state: &State,
    batches: Batches,
    region: Region,
    page: u64,
) -> Vec<Fill> {
    let unit = region.unit_pages();
    if unit > 1 {
        return vec![Fill::Compose(window(page, unit, region.run()))];
    }
    let around = window(page, batches.fault_pages, region.run());
    let wider = window(page, batches.zero_pages, region.run());
    let mut fills = Vec::new();
    let mut push = |run| classify(layout, state, run, &mut fills);
    for (piece, present) in state.present().pieces(around) {
        if !present {
            push(piece);
        } else if (piece.first..piece.end()).contains(&page) {
            push(Run {
                first: page,
                count: 1,
            });
        }
    }
    let is_wanted = |fill: &Fill| (fill.run().first..fill.run().end()).contains(&page);
    if let Some(nth) = fills.iter().position(is_wanted) {
        let mut wanted = fills.remove(nth);
        if let Fill::Zero(run) = &mut wanted {
            *run = grow(layout, state, *run, wider);
        }
        fills.insert(0, wanted);
    }
    fills
}

/// What is missing in `run`, which lies in `region`.
pub(crate) fn ahead(
    layout: &Layout,
    state: &State,
    ahead: Ahead,
    region: Region,
    run: Run,
) -> Vec<Fill> {
    let unit = region.unit_pages();
    let mut fills = Vec::new();
    if unit > 1 {
        let mut first = run.first - run.first % unit;
        while first < run.end() {
            let unit = window(first, unit, region.run());
            if !state.present().get(first)
                && (ahead == Ahead::Prefetch || has_data(layout, state, unit))
            {
                fills.push(Fill::Compose(unit));
            }
            first = unit.end();
        }
        return fills;
    }
    for (piece, present) in state.present().pieces(run) {
        if !present {
            classify(layout, state, piece, &mut fills);
        }
    }
    if ahead == Ahead::Graduate {
        fills.retain(|fill| !matches!(fill, Fill::Zero(_)));
    }
    fills
}

/// The pieces a large page consists of: data of layers, zeros elsewhere.
pub(crate) fn compose(layout: &Layout, state: &State, run: Run) -> Vec<Extent> {
    let mut fills = Vec::new();
    classify(layout, state, run, &mut fills);
    fills
        .into_iter()
        .filter_map(|fill| match fill {
            Fill::Copy(extent) => Some(extent),
            Fill::Zero(_) | Fill::Compose(_) => None,
        })
        .collect()
}

fn has_data(layout: &Layout, state: &State, run: Run) -> bool {
    !compose(layout, state, run).is_empty()
}

/// The `size` pages around `page`, aligned to `size`, inside `bounds`.
pub(crate) fn window(page: u64, size: u64, bounds: Run) -> Run {
    let start = page - page % size;
    let first = start.max(bounds.first);
    let end = (start + size).min(bounds.end());
    Run {
        first,
        count: end - first,
    }
}

/// Adds what makes the missing pages of `run` what they must be.
fn classify(layout: &Layout, state: &State, run: Run, fills: &mut Vec<Fill>) {
    for (piece, removed) in state.removed().pieces(run) {
        if removed {
            push_zero(fills, piece);
            continue;
        }
        for piece in layout.pieces(piece) {
            match piece {
                Piece::Data(extent) => fills.push(Fill::Copy(extent)),
                Piece::Zero(run) => push_zero(fills, run),
            }
        }
    }
}

fn push_zero(fills: &mut Vec<Fill>, run: Run) {
    if let Some(Fill::Zero(last)) = fills.last_mut()
        && last.end() == run.first
    {
        last.count += run.count;
    } else {
        fills.push(Fill::Zero(run));
    }
}

/// `run`, which is zero and missing, with its neighbours in `bounds` that are so too.
fn grow(layout: &Layout, state: &State, run: Run, bounds: Run) -> Run {
    let mut fills = Vec::new();
    for (piece, present) in state.present().pieces(bounds) {
        if !present {
            classify(layout, state, piece, &mut fills);
        }
    }
    let around = fills.into_iter().find_map(|fill| match fill {
        Fill::Zero(zero) if zero.first <= run.first && run.end() <= zero.end() => Some(zero),
        _ => None,
    });
    around.unwrap_or(run)
}
