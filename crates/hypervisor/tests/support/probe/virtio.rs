//! Virtio over MMIO, version 2, polled.

use crate::{map, sys};

pub const BLOCK: u32 = 2;
pub const CONSOLE: u32 = 3;
pub const BALLOON: u32 = 5;
pub const VSOCK: u32 = 19;

/// Entries of every queue.
const SIZE: u16 = 8;

/// "virt"
const MAGIC: u32 = 0x7472_6976;

const VERSION_1: u32 = 1;

/// A transport with a device behind it.
#[derive(Clone, Copy)]
pub struct Device {
    base: u64,
    /// Of its first queue in [`map::QUEUES`]; each device has room for eight.
    place: u64,
}

impl Device {
    /// All devices in the order of their addresses.
    pub fn all() -> impl Iterator<Item = Self> {
        let window = [map::FIRECRACKER_DEVICES, map::QEMU_DEVICES]
            .into_iter()
            .find(|(base, step, count)| (0..*count).any(|at| is_device(base + at * step)));
        let (base, step, count) = window.unwrap_or((0, 0, 0));
        (0..count)
            .map(move |at| Self {
                base: base + at * step,
                place: at % 4,
            })
            .filter(|device| is_device(device.base))
    }

    pub fn kind(self) -> u32 {
        sys::read32(self.base + 8)
    }

    /// Resets it and agrees on the first 32 features `low`, and on being a modern device.
    pub fn start(self, low: u32) {
        self.set(0x70, 0);
        self.set(0x70, 1);
        self.set(0x70, 3);
        self.set(0x24, 0);
        self.set(0x20, low);
        self.set(0x24, 1);
        self.set(0x20, VERSION_1);
        self.set(0x70, 11);
    }

    /// The device may work.
    pub fn ready(self) {
        self.set(0x70, 15);
    }

    pub fn queue(self, index: u32) -> Queue {
        let ring = map::QUEUES + (self.place * 8 + u64::from(index)) * map::QUEUE_STEP;
        self.set(0x30, index);
        self.set(0x38, u32::from(SIZE));
        for (register, part) in [(0x80, 0), (0x90, 0x1000), (0xa0, 0x2000)] {
            let address = ring + part;
            self.set(register, address as u32);
            self.set(register + 4, (address >> 32) as u32);
        }
        self.set(0x44, 1);
        Queue {
            device: self,
            index,
            ring,
            added: 0,
            taken: 0,
        }
    }

    /// A field of the device's own configuration.
    pub fn config(self, offset: u64) -> u32 {
        sys::read32(self.base + 0x100 + offset)
    }

    fn set(self, register: u64, value: u32) {
        sys::write32(self.base + register, value);
    }
}

fn is_device(base: u64) -> bool {
    sys::read32(base) == MAGIC && sys::read32(base + 8) != 0
}

/// A piece of a request.
pub struct Part {
    pub address: u64,
    pub length: u32,
    pub written_by: By,
}

#[derive(PartialEq, Eq)]
pub enum By {
    Guest,
    Device,
}

pub struct Queue {
    device: Device,
    index: u32,
    ring: u64,
    added: u16,
    taken: u16,
}

impl Queue {
    /// Offers a chain of buffers in the descriptors from `first` on.
    pub fn offer(&mut self, first: u16, parts: &[Part]) {
        for (at, part) in parts.iter().enumerate() {
            let at = at as u16;
            let descriptor = self.ring + u64::from(first + at) * 16;
            let more = usize::from(at) + 1 < parts.len();
            let flags = u16::from(more) | if part.written_by == By::Device { 2 } else { 0 };
            sys::write64(descriptor, part.address);
            sys::write32(descriptor + 8, part.length);
            sys::write16(descriptor + 12, flags);
            sys::write16(descriptor + 14, if more { first + at + 1 } else { 0 });
        }
        let available = self.ring + 0x1000;
        sys::write16(available, 1);
        sys::write16(available + 4 + u64::from(self.added % SIZE) * 2, first);
        self.added = self.added.wrapping_add(1);
        sys::fence();
        sys::write16(available + 2, self.added);
        sys::fence();
        self.device.set(0x50, self.index);
    }

    /// First descriptor and length of a chain that the device is done with.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        let used = self.ring + 0x2000;
        if sys::read16(used + 2) == self.taken {
            return None;
        }
        sys::fence();
        let entry = used + 4 + u64::from(self.taken % SIZE) * 8;
        self.taken = self.taken.wrapping_add(1);
        Some((sys::read32(entry) as u16, sys::read32(entry + 4)))
    }

    /// Offers a chain and waits until the device is done with it.
    pub fn run(&mut self, parts: &[Part]) {
        self.offer(0, parts);
        while self.take().is_none() {
            sys::relax();
        }
    }
}
