//! A balloon: pages that are given back to the host.

use crate::map::BALLOON_BUFFERS;
use crate::sys;
use crate::virtio::{By, Device, Part, Queue};

/// Pages of one request: what Firecracker takes at once.
const PAGES: u64 = 256;

pub struct Balloon {
    inflate: Queue,
}

impl Balloon {
    pub fn start(device: Device) -> Self {
        device.start(0);
        let inflate = device.queue(0);
        // It is never deflated, but must have the queue.
        device.queue(1);
        device.ready();
        Self { inflate }
    }

    /// Gives pages `first..first + count` back. They are zero from then on.
    pub fn inflate(&mut self, first: u64, count: u64) {
        let mut given = 0;
        while given < count {
            let now = PAGES.min(count - given);
            for nth in 0..now {
                let page = first + given + nth;
                sys::write32(BALLOON_BUFFERS + nth * 4, page as u32);
            }
            self.inflate.run(&[Part {
                address: BALLOON_BUFFERS,
                length: now as u32 * 4,
                written_by: By::Guest,
            }]);
            given += now;
        }
    }
}
