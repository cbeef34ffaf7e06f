//! Bytes are right, whatever the image is made of and whatever guests do.

use memory::{Encoding, Run};

use super::guest::Guest;
use super::reference::{Layer, Reference};
use super::rig::Rig;

pub(crate) const ALL: &[super::Test] = &[
    (
        "every_kind_of_image_is_served",
        every_kind_of_image_is_served,
    ),
    ("what_was_given_back_is_zero", what_was_given_back_is_zero),
    ("large_pages_are_put_together", large_pages_are_put_together),
    (
        "strangers_and_nonsense_are_refused",
        strangers_and_nonsense_are_refused,
    ),
];

const PAGES: u64 = 4096;

fn every_kind_of_image_is_served() {
    use Encoding::{Flat, Packed, Zstd};
    let striped = Layer::striped;
    let stacks = [
        vec![Layer::whole(Packed, PAGES, 0)],
        vec![striped(Packed, PAGES, 5, 3, 0)],
        vec![striped(Flat, PAGES, 300, 100, 0)],
        vec![striped(Zstd, PAGES, 40, 0, 0)],
        vec![
            striped(Packed, PAGES, 700, 100, 0),
            striped(Zstd, PAGES, 33, 11, 1),
            striped(Flat, PAGES, 3, 50, 2),
            Layer {
                encoding: Packed,
                runs: vec![
                    Run { first: 0, count: 1 },
                    Run {
                        first: PAGES - 1,
                        count: 1,
                    },
                ],
                seed: 3,
            },
        ],
    ];
    for layers in stacks {
        let dir = tempfile::tempdir().unwrap();
        let reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
        let rig = Rig::of(dir.path(), &reference);
        let mut guest = rig.guest("vm", &reference);
        assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
        let stats = rig.stats("vm").stats;
        let data: u64 = reference
            .bytes
            .chunks(4096)
            .filter(|page| page.iter().any(|byte| *byte != 0))
            .count() as u64;
        assert!(stats.copied_bytes >= data * 4096, "{stats:?}");
        assert_eq!(
            stats.copied_bytes + stats.zeroed_bytes,
            PAGES * 4096,
            "{stats:?}"
        );
        assert!(stats.faults > 0 && stats.latency.count() > 0, "{stats:?}");
    }
}

fn what_was_given_back_is_zero() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::whole(Encoding::Packed, PAGES, 0),
        Layer::striped(Encoding::Zstd, PAGES, 64, 10, 1),
    ];
    let mut reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    assert_eq!(guest.sum(0, 1000), Some(reference.sum(0, 1000)));
    // Some that are there, and some that have never been touched.
    for (first, count) in [(100, 50), (990, 40), (2000, 1), (3000, 600)] {
        assert_eq!(
            guest.ask(&format!("discard {first} {count}")).as_deref(),
            Some("done")
        );
        reference.forget(first, count);
    }
    guest.ask("write 120 x");
    reference.bytes[120 * 4096] = b'x';
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    assert_eq!(
        rig.stats("vm").stats.removed_bytes,
        (50 + 40 + 1 + 600) * 4096
    );
}

fn large_pages_are_put_together() {
    const LARGE: u64 = 512;
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.map_or(0, |text| text.trim().parse().unwrap());
    if free < PAGES / LARGE {
        println!(
            "skipped: {free} pages of 2 MiB are free, {} are needed",
            PAGES / LARGE
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let layers = [
        Layer::striped(Encoding::Packed, PAGES, 700, 100, 0),
        Layer::striped(Encoding::Zstd, PAGES, 33, 2000, 1),
    ];
    let mut reference = Reference::new(&dir.path().join("image"), PAGES, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = Guest::with_pages(reference.bytes.len(), "large");
    guest.tell("hand-over");
    rig.attach("vm", &guest, None, false).unwrap();
    assert_eq!(guest.result().as_deref(), Some("done"));
    assert_eq!(guest.sum(0, 600), Some(reference.sum(0, 600)));
    guest.ask(&format!("discard {LARGE} {}", 2 * LARGE));
    reference.forget(LARGE, 2 * LARGE);
    rig.signal_pager(rustix::process::Signal::KILL);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
}

fn strangers_and_nonsense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let layers = [Layer::whole(Encoding::Packed, 64, 0)];
    let reference = Reference::new(&dir.path().join("image"), 64, &layers);
    let rig = Rig::of(dir.path(), &reference);
    let cases = [
        ("say [] ", "handshake"),
        ("say {\"no\": \"thing\"}", "handshake"),
        (
            "say [{\"base_host_virt_addr\":4096,\"size\":524288,\"offset\":0,\"page_size\":4096,\"page_size_kib\":4096}]",
            "handshake",
        ),
        ("say-nothing-with /dev/null", "no userfaultfd"),
    ];
    for (line, wanted) in cases {
        let mut guest = Guest::start(reference.bytes.len());
        guest.tell(line);
        let refused = rig
            .attach("vm", &guest, None, false)
            .unwrap_err()
            .to_string();
        assert!(refused.contains(wanted), "{line}: {refused}");
    }
    let mut guest = Guest::start(reference.bytes.len());
    guest.tell("hand-over");
    let stranger = pager::Attach {
        vm: "vm".into(),
        listener: &guest.listener,
        expected_pid: Some(1),
        limit: super::guest::PATIENCE,
        hot_pages: None,
        record: false,
    };
    let refused = rig.supervisor.attach(stranger).unwrap_err().to_string();
    assert!(refused.contains("not the VMM"), "{refused}");
    // None of this has hurt the pager.
    let mut guest = rig.guest("vm", &reference);
    assert_eq!(guest.sum(0, 64), Some(reference.sum(0, 64)));
}
