//! A disk, one sector at a time.

use crate::map::BLOCK_BUFFERS;
use crate::sys;
use crate::virtio::{By, Device, Part, Queue};

pub const SECTOR: usize = 512;

const HEADER: u64 = BLOCK_BUFFERS;
const DATA: u64 = BLOCK_BUFFERS + 0x200;
const STATUS: u64 = BLOCK_BUFFERS + 0x800;

pub struct Disk {
    queue: Queue,
}

impl Disk {
    pub fn start(device: Device) -> Self {
        device.start(0);
        let queue = device.queue(0);
        device.ready();
        Self { queue }
    }

    pub fn read(&mut self, sector: u64) -> Option<[u8; SECTOR]> {
        self.request(0, sector, By::Device).then(|| {
            let mut bytes = [0; SECTOR];
            for (byte, address) in bytes.iter_mut().zip(DATA..) {
                *byte = sys::read8(address);
            }
            bytes
        })
    }

    pub fn write(&mut self, sector: u64, bytes: &[u8; SECTOR]) -> bool {
        for (byte, address) in bytes.iter().zip(DATA..) {
            sys::write8(address, *byte);
        }
        self.request(1, sector, By::Guest)
    }

    fn request(&mut self, kind: u32, sector: u64, written_by: By) -> bool {
        sys::write32(HEADER, kind);
        sys::write32(HEADER + 4, 0);
        sys::write64(HEADER + 8, sector);
        sys::write8(STATUS, 0xff);
        let part = |address, length, written_by| Part {
            address,
            length,
            written_by,
        };
        self.queue.run(&[
            part(HEADER, 16, By::Guest),
            part(DATA, SECTOR as u32, written_by),
            part(STATUS, 1, By::Device),
        ]);
        sys::read8(STATUS) == 0
    }
}
