//! Random images, regions, faults, removals, troubles and lost pagers, against a reference that knows every byte.
//!
//! The image is one on disk, of layers in every encoding. Under the machine stands a kernel of our own, which answers
//! as the real one does. Whatever a thread finds when its fault is answered, all that is there after each step, and
//! all of RAM when the machine is complete, is compared with the reference byte by byte.

mod kernel;
#[path = "../../../tests/real/reference.rs"]
#[expect(dead_code, reason = "the tests on real pagers need more of it")]
mod reference;
mod world;

use memory::{Encoding, Run};
use proptest::prelude::*;
use proptest::strategy::Union;

use crate::plan::Batches;
use kernel::{Access, Trouble};
use reference::{Layer, Reference};
use world::{Machine, Step, World, regions};

const PAGES: u64 = 96;

/// Rates of completing a machine, in bytes per second: one that waits between pieces, and one that never does.
const RATES: [u64; 2] = [4 << 20, 1 << 40];

fn run() -> impl Strategy<Value = Run> {
    (0..PAGES, 1_u64..30).prop_map(|(first, count)| Run {
        first,
        count: count.min(PAGES - first),
    })
}

fn layer() -> impl Strategy<Value = Layer> {
    let encoding = prop_oneof![
        Just(Encoding::Packed),
        Just(Encoding::Flat),
        Just(Encoding::Zstd)
    ];
    let runs = prop::collection::vec(run(), 1..4).prop_map(memory::merge_runs);
    (encoding, runs, 0_u64..1 << 32).prop_map(|(encoding, runs, seed)| Layer {
        encoding,
        runs,
        seed,
    })
}

fn machine() -> impl Strategy<Value = Machine> {
    let unit = prop_oneof![3 => Just(1_u64), 1 => Just(4)];
    let cuts = prop::collection::vec((0..PAGES, prop::bool::weighted(0.3)), 0..4);
    let batch = || prop_oneof![Just(1_u64), Just(8), Just(16)];
    let fills = (batch(), batch(), 1_u64..6);
    (
        prop::collection::vec(layer(), 1..4),
        (cuts, any::<bool>(), unit),
        fills,
    )
        .prop_map(
            |(layers, (cuts, order, unit), (fault, zero, few))| Machine {
                layers,
                regions: regions(&cuts, order, unit),
                unit,
                batches: Batches {
                    fault_pages: fault,
                    zero_pages: fault.max(2 * zero),
                },
                few,
            },
        )
        .prop_filter("no RAM", |machine| !machine.regions.is_empty())
}

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![
        2 => Just(Access::Read),
        1 => (0..memory::PAGE_BYTES, any::<u8>()).prop_map(|(at, byte)| Access::Write(at, byte)),
    ]
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        Just(Trouble::Busy),
        Just(Trouble::NoMemory),
        (1_u64..4).prop_map(Trouble::Short),
        any::<bool>().prop_map(|is_done| Trouble::Kill { is_done }),
    ]
}

fn step() -> Union<BoxedStrategy<Step>> {
    let touch = prop::collection::vec((0..PAGES, access()), 1..5);
    // Hot pages are a hint: they may lie anywhere.
    let hot = prop::collection::vec((0..PAGES + 20, 1_u64..40), 1..4);
    Union::new_weighted(vec![
        (6, touch.prop_map(Step::Touch).boxed()),
        (2, run().prop_map(Step::Remove).boxed()),
        (3, Just(Step::DropPages).boxed()),
        (
            2,
            prop::bool::weighted(0.3)
                .prop_map(|dies| Step::Read { dies })
                .boxed(),
        ),
        (6, (1_u8..40).prop_map(Step::Serve).boxed()),
        (4, (1_u64..40).prop_map(Step::Ahead).boxed()),
        (1, hot.prop_map(Step::Prefetch).boxed()),
        (1, (0..RATES.len()).prop_map(Step::Graduate).boxed()),
        (1, Just(Step::Die).boxed()),
        (1, any::<usize>().prop_map(Step::Appear).boxed()),
        (
            3,
            (0_u8..6, trouble())
                .prop_map(|(calls, trouble)| Step::Trouble(calls, trouble))
                .boxed(),
        ),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_byte_is_right_and_nobody_waits_for_ever(
        machine in machine(),
        lives in prop::collection::vec(prop::collection::vec(step(), 1..80), 1..9),
        last in prop::collection::vec((0_u8..3, trouble()), 0..3),
    ) {
        // Writing an image takes longer than several machines do that have it.
        let dir = tempfile::tempdir().unwrap();
        let reference = Reference::new(&dir.path().join("image"), PAGES, &machine.layers);
        for steps in lives {
            let mut world = World::new(&machine, &reference);
            for step in steps {
                world.step(step);
            }
            world.end(last.clone());
        }
    }
}
