//! A network namespace with a TAP device, as machines get one.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use hypervisor::Nic;

/// Address of every guest's card: locally administered.
pub(crate) const MAC: [u8; 6] = [0x02, 0xc0, 0xff, 0, 0, 1];

const TAP: &str = "tap0";

/// Address of the host in every namespace.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);

/// Removed when it is dropped.
pub(crate) struct Network {
    name: String,
}

impl Network {
    /// `None` where this process may not make one.
    pub(crate) fn make() -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            name: format!("coppice-test-{}-{number}", std::process::id()),
        };
        ip(&format!("netns add {}", network.name)).then_some(())?;
        network.ip("tuntap add tap0 mode tap").then_some(())?;
        network
            .ip(&format!("addr add {HOST}/24 dev tap0"))
            .then_some(())?;
        network.ip("link set tap0 up").then_some(())?;
        Some(network)
    }

    pub(crate) fn nic(&self) -> Nic {
        Nic {
            netns: format!("/run/netns/{}", self.name).into(),
            tap: TAP.into(),
            mac: MAC,
        }
    }

    /// Runs `ip` in the namespace.
    fn ip(&self, arguments: &str) -> bool {
        ip(&format!("-n {} {arguments}", self.name))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace());
    command.status().is_ok_and(|status| status.success())
}
