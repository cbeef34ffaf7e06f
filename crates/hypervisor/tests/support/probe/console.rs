//! The agent's port of a virtio-serial device.

use crate::map::CHANNEL_BUFFERS;
use crate::sys;
use crate::text::Text;
use crate::virtio::{By, Device, Part, Queue};

/// Number of the agent's port, and of its two queues.
const PORT: u32 = 1;
const PORT_RECEIVE: u32 = 4;
const PORT_TRANSMIT: u32 = 5;
const CONTROL_RECEIVE: u32 = 2;
const CONTROL_TRANSMIT: u32 = 3;

/// Feature: several ports.
const MULTIPORT: u32 = 2;

const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;

const SLOTS: u16 = 4;
const ROOM: u64 = 0x200;
const SEND: u64 = CHANNEL_BUFFERS + 0x4000;
const CONTROL_SEND: u64 = CHANNEL_BUFFERS + 0x5000;
const CONTROL: u64 = CHANNEL_BUFFERS + 0x6000;

pub struct Console {
    receive: Queue,
    transmit: Queue,
    control: Queue,
    control_transmit: Queue,
}

impl Console {
    pub fn start(device: Device) -> Self {
        device.start(MULTIPORT);
        let mut console = Self {
            receive: device.queue(PORT_RECEIVE),
            transmit: device.queue(PORT_TRANSMIT),
            control: device.queue(CONTROL_RECEIVE),
            control_transmit: device.queue(CONTROL_TRANSMIT),
        };
        device.ready();
        for slot in 0..SLOTS {
            console
                .control
                .offer(slot, &[buffer(CONTROL, slot, By::Device)]);
            console
                .receive
                .offer(slot, &[buffer(CHANNEL_BUFFERS, slot, By::Device)]);
        }
        console.tell(u32::MAX, DEVICE_READY, 1);
        console
    }

    pub fn poll(&mut self, line: &mut Text) {
        while let Some((slot, _)) = self.control.take() {
            let message = CONTROL + u64::from(slot) * ROOM;
            let (port, event) = (sys::read32(message), sys::read16(message + 4));
            self.control
                .offer(slot, &[buffer(CONTROL, slot, By::Device)]);
            match event {
                DEVICE_ADD => self.tell(port, PORT_READY, 1),
                PORT_OPEN if port == PORT => line.clear(),
                _ => {}
            }
            if event == DEVICE_ADD && port == PORT {
                self.tell(port, PORT_OPEN, 1);
            }
        }
        while let Some((slot, length)) = self.receive.take() {
            let start = CHANNEL_BUFFERS + u64::from(slot) * ROOM;
            for address in start..start + u64::from(length) {
                line.push(&[sys::read8(address)]);
            }
            self.receive
                .offer(slot, &[buffer(CHANNEL_BUFFERS, slot, By::Device)]);
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        for (address, byte) in (SEND..).zip(bytes) {
            sys::write8(address, *byte);
        }
        self.transmit.run(&[Part {
            address: SEND,
            length: bytes.len() as u32,
            written_by: By::Guest,
        }]);
    }

    fn tell(&mut self, port: u32, event: u16, value: u16) {
        sys::write32(CONTROL_SEND, port);
        sys::write16(CONTROL_SEND + 4, event);
        sys::write16(CONTROL_SEND + 6, value);
        self.control_transmit.run(&[Part {
            address: CONTROL_SEND,
            length: 8,
            written_by: By::Guest,
        }]);
    }
}

fn buffer(base: u64, slot: u16, written_by: By) -> Part {
    Part {
        address: base + u64::from(slot) * ROOM,
        length: ROOM as u32,
        written_by,
    }
}
