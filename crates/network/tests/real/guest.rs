//! A guest: a Linux network stack behind the TAP of a slot, as one in a machine is.

use std::fs::File;
use std::io::{Read, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use network::{Lease, guest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::place::{Place, ip};
use crate::sys;

/// A machine in a slot. Dropping it is the death of the VMM.
pub(crate) struct Guest {
    memory: Memory,
    stop: Arc<AtomicBool>,
    pumps: Vec<JoinHandle<()>>,
}

/// A machine that does not run: interface, routes, sockets, connections.
pub(crate) struct Memory {
    place: Arc<Place>,
    eth0: File,
}

impl Deref for Guest {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.memory.place
    }
}

impl Guest {
    /// Boots one in the slot.
    pub(crate) fn boot(lease: &Lease) -> Self {
        let place = Place::new();
        let eth0 = place.run(|| {
            let eth0 = sys::open_tap("eth0").unwrap();
            let mac = guest::mac();
            ip(&format!("link set eth0 address {mac} mtu {}", lease.mtu));
            ip(&format!(
                "addr add {}/{} dev eth0",
                guest::ADDRESS,
                guest::PREFIX
            ));
            ip("link set eth0 up");
            ip(&format!("route add default via {}", guest::GATEWAY));
            eth0
        });
        let place = Arc::new(place);
        Memory { place, eth0 }.plug(lease)
    }

    /// Ends the VMM and keeps the memory.
    pub(crate) fn unplug(self) -> Memory {
        Memory {
            place: Arc::clone(&self.memory.place),
            eth0: self.memory.eth0.try_clone().unwrap(),
        }
    }
}

impl Memory {
    /// Restores it in a slot.
    pub(crate) fn plug(self, lease: &Lease) -> Guest {
        let slot = Place::of(&lease.netns);
        let outside = slot.run(|| sys::open_tap(&lease.tap).unwrap());
        // The kernel notices that a TAP was opened a moment later, and drops what is sent until then.
        sends(&slot, &lease.tap);
        sends(&self.place, "eth0");
        let stop = Arc::new(AtomicBool::new(false));
        let pumps = vec![
            pump(&self.eth0, &outside, &stop),
            pump(&outside, &self.eth0, &stop),
        ];
        Guest {
            memory: self,
            stop,
            pumps,
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
    }
}

/// Waits until an interface sends.
fn sends(place: &Place, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while place
        .ip(&format!("-oneline link show {name}"))
        .contains(" noop ")
    {
        assert!(Instant::now() < deadline, "{name} does not come up");
    }
}

/// Carries frames from one TAP to the other.
fn pump(from: &File, to: &File, stop: &Arc<AtomicBool>) -> JoinHandle<()> {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        let mut frame = vec![0; 1 << 16];
        let tick = Timespec {
            tv_sec: 0,
            tv_nsec: 50_000_000,
        };
        while !stop.load(Ordering::Relaxed) {
            let ready = poll(&mut [PollFd::new(&from, PollFlags::IN)], Some(&tick));
            if ready.is_ok_and(|count| count > 0)
                && let Ok(length) = from.read(&mut frame)
            {
                let _ = to.write_all(&frame[..length]);
            }
        }
    })
}
