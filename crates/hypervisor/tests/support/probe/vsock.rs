//! A vsock port that takes one connection after the other.

use crate::map::CHANNEL_BUFFERS;
use crate::sys;
use crate::text::Text;
use crate::virtio::{By, Device, Part, Queue};

/// The agent's port.
const PORT: u32 = 1024;

const HOST: u64 = 2;
const HEADER: u32 = 44;
const DATA: u32 = 4096;
/// Buffers for packets from the host; each has two descriptors.
const SLOTS: u16 = 4;

const REQUEST: u16 = 1;
const RESPONSE: u16 = 2;
const RESET: u16 = 3;
const SHUTDOWN: u16 = 4;
const DATA_PACKET: u16 = 5;
const CREDIT_UPDATE: u16 = 6;
const CREDIT_REQUEST: u16 = 7;

const SEND: u64 = CHANNEL_BUFFERS + 0x1_0000;
const EVENTS: u64 = CHANNEL_BUFFERS + 0x1_4000;

pub struct Vsock {
    receive: Queue,
    transmit: Queue,
    events: Queue,
    cid: u64,
    /// The host's port of the connection; 0 if there is none.
    peer: u32,
    /// Bytes taken from the connection.
    taken: u32,
}

impl Vsock {
    pub fn start(device: Device) -> Self {
        device.start(0);
        let mut vsock = Self {
            receive: device.queue(0),
            transmit: device.queue(1),
            events: device.queue(2),
            cid: u64::from(device.config(0)),
            peer: 0,
            taken: 0,
        };
        device.ready();
        for slot in 0..SLOTS {
            vsock.offer(slot);
            vsock.events.offer(slot, &[event(slot)]);
        }
        vsock
    }

    pub fn poll(&mut self, line: &mut Text) {
        // A machine that went on from an image is told so; its connections are gone, and new ones will come.
        while let Some((slot, _)) = self.events.take() {
            self.events.offer(slot, &[event(slot)]);
        }
        while let Some((first, _)) = self.receive.take() {
            let slot = first / 2;
            self.packet(slot, line);
            self.offer(slot);
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        if self.peer != 0 {
            self.packet_to(self.peer, DATA_PACKET, bytes);
        }
    }

    fn packet(&mut self, slot: u16, line: &mut Text) {
        let (header, data) = slot_addresses(slot);
        let peer = sys::read32(header + 16);
        let wanted = sys::read32(header + 20);
        let length = sys::read32(header + 24).min(DATA);
        match sys::read16(header + 30) {
            REQUEST if wanted == PORT => {
                (self.peer, self.taken) = (peer, 0);
                line.clear();
                self.packet_to(peer, RESPONSE, b"");
            }
            REQUEST => self.packet_between(wanted, peer, RESET, b""),
            DATA_PACKET if peer == self.peer => {
                self.taken = self.taken.wrapping_add(length);
                for address in data..data + u64::from(length) {
                    line.push(&[sys::read8(address)]);
                }
            }
            CREDIT_REQUEST => self.packet_to(peer, CREDIT_UPDATE, b""),
            SHUTDOWN => {
                self.packet_to(peer, RESET, b"");
                if peer == self.peer {
                    self.peer = 0;
                }
            }
            RESET if peer == self.peer => self.peer = 0,
            _ => {}
        }
    }

    fn packet_to(&mut self, peer: u32, operation: u16, bytes: &[u8]) {
        self.packet_between(PORT, peer, operation, bytes);
    }

    fn packet_between(&mut self, port: u32, peer: u32, operation: u16, bytes: &[u8]) {
        let fields = [(0, self.cid), (8, HOST)];
        for (offset, value) in fields {
            sys::write64(SEND + offset, value);
        }
        let kind = 1 | u32::from(operation) << 16;
        // Ports, length, stream type and operation, flags, room for the host's bytes, bytes taken.
        let fields = [port, peer, bytes.len() as u32, kind, 0, 1 << 18, self.taken];
        for (offset, value) in (16..).step_by(4).zip(fields) {
            sys::write32(SEND + offset, value);
        }
        for (address, byte) in (SEND + 0x100..).zip(bytes) {
            sys::write8(address, *byte);
        }
        let part = |address, length| Part {
            address,
            length,
            written_by: By::Guest,
        };
        let header = part(SEND, HEADER);
        if bytes.is_empty() {
            self.transmit.run(&[header]);
        } else {
            self.transmit
                .run(&[header, part(SEND + 0x100, bytes.len() as u32)]);
        }
    }

    fn offer(&mut self, slot: u16) {
        let (header, data) = slot_addresses(slot);
        let part = |address, length| Part {
            address,
            length,
            written_by: By::Device,
        };
        self.receive
            .offer(slot * 2, &[part(header, HEADER), part(data, DATA)]);
    }
}

fn slot_addresses(slot: u16) -> (u64, u64) {
    let slot = CHANNEL_BUFFERS + u64::from(slot) * 0x2000;
    (slot, slot + 0x1000)
}

fn event(slot: u16) -> Part {
    Part {
        address: EVENTS + u64::from(slot) * 64,
        length: 4,
        written_by: By::Device,
    }
}
