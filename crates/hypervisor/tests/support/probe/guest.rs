//! The probe guest: a machine without a kernel that answers commands, for tests of real VMMs where no Linux guest runs.
//!
//! It leaves ring 0 at once, drives virtio devices by polling, and takes lines of text over the agent's channel:
//! a vsock port under Firecracker, a virtio-serial port under QEMU. Commands are in `commands.rs`.
//! `cargo xtask assets` compiles it to a flat ELF file with two ways in, PVH and 64-bit.

#![no_std]
#![no_main]

mod balloon;
mod block;
mod commands;
mod console;
mod map;
mod pages;
mod random;
mod second;
mod serial;
mod sys;
mod text;
mod virtio;
mod vsock;
mod words;

use balloon::Balloon;
use block::Disk;
use console::Console;
use text::Text;
use virtio::Device;
use vsock::Vsock;

/// Where lines come from and answers go.
enum Channel {
    Vsock(Vsock),
    Console(Console),
}

impl Channel {
    /// Bytes that have arrived, put behind `line`; a new connection forgets what an earlier one has left.
    fn poll(&mut self, line: &mut Text) {
        match self {
            Self::Vsock(vsock) => vsock.poll(line),
            Self::Console(console) => console.poll(line),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Vsock(vsock) => vsock.send(bytes),
            Self::Console(console) => console.send(bytes),
        }
    }
}

/// What commands work on.
pub struct Devices {
    disk: Disk,
    balloon: Option<Balloon>,
}

/// What stays as it was set.
#[derive(Default)]
pub struct Settings {
    /// Rounds between two characters on the serial line; none while 0.
    letters: u64,
    /// Pages that a processor works on before it leaves as many to the other; it is alone while 0.
    turns: u64,
}

fn run() -> ! {
    let Some((channel, devices)) = devices() else {
        // What a kernel says that got as far as it can without a disk: whoever tries a kernel looks for it.
        serial::print(b"probe: Unable to mount root: no devices\n");
        power_off()
    };
    serial::print(b"probe: ready\n");
    serve(channel, devices)
}

fn devices() -> Option<(Channel, Devices)> {
    let mut disk = None;
    let mut balloon = None;
    let mut channel = None;
    for device in Device::all() {
        match device.kind() {
            // The first disk is the read-only root, the second one is written to.
            virtio::BLOCK => disk = Some(device),
            virtio::BALLOON => balloon = Some(Balloon::start(device)),
            virtio::VSOCK => channel = Some(Channel::Vsock(Vsock::start(device))),
            virtio::CONSOLE => channel = Some(Channel::Console(Console::start(device))),
            _ => {}
        }
    }
    let devices = Devices {
        disk: Disk::start(disk?),
        balloon,
    };
    Some((channel?, devices))
}

fn serve(mut channel: Channel, mut devices: Devices) -> ! {
    let mut line = Text::new();
    let mut answer = Text::new();
    let mut beats = 0_u64;
    let mut settings = Settings::default();
    loop {
        beats += 1;
        if settings.letters > 0 && beats % settings.letters == 0 {
            serial::print(b".");
        }
        channel.poll(&mut line);
        if line.bytes().last() == Some(&b'\n') {
            commands::execute(
                line.bytes(),
                &mut devices,
                beats,
                &mut settings,
                &mut answer,
            );
            answer.push(b"\n");
            channel.send(answer.bytes());
            line.clear();
            answer.clear();
        }
        sys::relax();
    }
}

/// Ends the machine: by the keyboard controller's reset under Firecracker, by the sleep register of ACPI under QEMU.
fn power_off() -> ! {
    sys::out8(0x64, 0xfe);
    sys::write8(map::QEMU_SLEEP, 0x34);
    loop {
        sys::relax();
    }
}
