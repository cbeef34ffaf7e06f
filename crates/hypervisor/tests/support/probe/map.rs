//! Where things are in the guest's physical memory. The program itself lies from 1 MiB on.

/// Rings of virtio queues, [`QUEUE_STEP`] apart.
pub const QUEUES: u64 = 0x20_0000;
pub const QUEUE_STEP: u64 = 0x3000;

/// Buffers that devices read and write, for each device a part of its own.
pub const BLOCK_BUFFERS: u64 = 0x28_0000;
pub const CHANNEL_BUFFERS: u64 = 0x29_0000;
pub const BALLOON_BUFFERS: u64 = 0x2b_0000;

/// Words that the guest was told to remember.
pub const WORDS: u64 = 0x30_0000;

/// Where the second processor starts: it does so in real mode, below 1 MiB, in a page that neither VMM uses.
pub const SECOND_START: u64 = 0x1_0000;

/// What it is told to do, and what it says.
pub const SECOND: u64 = 0x2f_0000;

/// The local APIC of the processor that reads or writes here.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// Virtio devices of Firecracker: from here on, so far apart, so many at most.
pub const FIRECRACKER_DEVICES: (u64, u64, u64) = (0xd000_0000, 0x1000, 12);

/// Virtio devices of QEMU's microvm.
pub const QEMU_DEVICES: (u64, u64, u64) = (0xfeb0_0000, 0x200, 24);

/// Sleep register of QEMU's microvm (ACPI generic event device).
pub const QEMU_SLEEP: u64 = 0xfea0_0200;
