//! A balloon: pages that are given back to the host.

use crate::map::BALLOON_BUFFERS;
use crate::pages;
use crate::random::Random;
use crate::sys;
use crate::virtio::{By, Device, Part, Queue};

/// Pages of one request: what Firecracker takes at once.
const PAGES: u64 = 256;

/// Pages of one round of a storm.
const STORM: u64 = 64;

pub struct Balloon {
    inflate: Queue,
    deflate: Queue,
}

impl Balloon {
    pub fn start(device: Device) -> Self {
        device.start(0);
        let (inflate, deflate) = (device.queue(0), device.queue(1));
        device.ready();
        Self { inflate, deflate }
    }

    /// Gives pages `first..first + count` back. They are zero from then on.
    pub fn inflate(&mut self, first: u64, count: u64) {
        let mut given = 0;
        while given < count {
            let now = PAGES.min(count - given);
            tell(&mut self.inflate, now, |nth| first + given + nth);
            given += now;
        }
    }

    /// Gives pages of `first..first + count` back, takes them again and uses them, as fast as it can and `rounds` times.
    /// The number of pages that did not hold what they should.
    pub fn storm(&mut self, first: u64, count: u64, rounds: u64) -> u64 {
        let mut random = Random::new(rounds);
        let mut wrong = 0;
        for round in 0..rounds {
            let start = first + random.below(count - 2 * STORM);
            // No two lie side by side, so the host is told of each of them.
            let page = |nth| start + 2 * nth;
            let among = || (0..STORM).map(page);
            tell(&mut self.inflate, STORM, page);
            wrong += among().filter(|page| !pages::is_zero(*page)).count();
            among().for_each(|page| pages::tag(page, round));
            tell(&mut self.deflate, STORM, page);
            wrong += among().filter(|page| pages::is_wrong(*page, round)).count();
        }
        wrong as u64
    }
}

/// Names `count` pages to the device.
fn tell(queue: &mut Queue, count: u64, page: impl Fn(u64) -> u64) {
    for nth in 0..count {
        sys::write32(BALLOON_BUFFERS + nth * 4, page(nth) as u32);
    }
    queue.run(&[Part {
        address: BALLOON_BUFFERS,
        length: count as u32 * 4,
        written_by: By::Guest,
    }]);
}
