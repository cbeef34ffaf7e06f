//! One slot on the kernel: making, cleaning, removing.
//!
//! These block; they are called from threads that may.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::conntrack;
use super::netns;
use super::route::{End, Route};
use super::shape;
use super::slot_rules::{self, Addresses, UPLINK};
use super::{sys, sysctl};
use crate::plan::Names;
use crate::{Bandwidth, NetworkError, Pool, Slot, Traffic, guest};

/// Hardware address of the host's end of a veth, the same in each slot as the other end's: nobody else is there.
const HOST_MAC: [u8; 6] = [0x02, 0xc0, 0x99, 0x1c, 0xe0, 0x03];
/// Hardware address of the namespace's end.
const UPLINK_MAC: [u8; 6] = [0x02, 0xc0, 0x99, 0x1c, 0xe0, 0x04];
/// Address of the host's end as the namespace knows it.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 100, 5);

/// What is needed to handle a slot.
#[derive(Debug, Clone)]
pub(super) struct SlotPlan {
    pub(super) slot: Slot,
    pub(super) address: Ipv4Addr,
    pub(super) host: Ipv4Addr,
    pub(super) netns: PathBuf,
    pub(super) link: String,
    pub(super) mtu: u16,
}

impl SlotPlan {
    /// The plan of `slot`, if the pool has it.
    pub(super) fn new(names: &Names, pool: Pool, mtu: u16, slot: Slot) -> Option<Self> {
        Some(Self {
            slot,
            address: pool.address(slot)?,
            host: pool.host(),
            netns: names.netns(slot),
            link: names.link(slot),
            mtu,
        })
    }

    /// Makes it. What is left of an earlier one is removed before, and what was made is removed if a step fails.
    pub(super) fn make(&self) -> Result<(), NetworkError> {
        self.remove()?;
        self.try_make().inspect_err(|_| {
            if let Err(error) = self.remove() {
                tracing::warn!(%error, slot = %self.slot, "half of a slot remains");
            }
        })
    }

    fn try_make(&self) -> Result<(), NetworkError> {
        let netns = self.netns.display();
        let mut host = Route::open().map_err(NetworkError::io("open", "rtnetlink"))?;
        netns::make(&self.netns, |own| {
            let here = End {
                name: &self.link,
                mac: HOST_MAC,
            };
            let there = End {
                name: UPLINK,
                mac: UPLINK_MAC,
            };
            // The socket is of the host's namespace still.
            host.add_veth(&here, &there, own.as_fd(), self.mtu)?;
            self.furnish()
        })
        .map_err(NetworkError::io("set up namespace", &netns))?;
        self.connect(&mut host)
            .map_err(NetworkError::io("set up interface", &self.link))
    }

    /// The inside, in a thread that is in the namespace.
    fn furnish(&self) -> io::Result<()> {
        sysctl::set("ipv4/ip_forward", "1")?;
        for part in ["all", "default"] {
            sysctl::set(&format!("ipv4/conf/{part}/rp_filter"), "0")?;
            sysctl::set(&format!("ipv4/conf/{part}/send_redirects"), "0")?;
            sysctl::set_if_there(&format!("ipv6/conf/{part}/disable_ipv6"), "1")?;
        }
        sys::make_tap(guest::TAP)?;
        let mut route = Route::open()?;
        let loopback = route.index("lo")?;
        route.bring_up(loopback, None, None)?;
        let tap = route.index(guest::TAP)?;
        route.bring_up(tap, Some(guest::GATEWAY_MAC), Some(self.mtu))?;
        route.add_address(tap, guest::GATEWAY, guest::PREFIX)?;
        route.add_neighbour(tap, guest::ADDRESS, guest::MAC)?;
        let uplink = route.index(UPLINK)?;
        route.bring_up(uplink, None, None)?;
        route.add_neighbour(uplink, NEXT_HOP, HOST_MAC)?;
        route.add_default_route(uplink, NEXT_HOP)?;
        slot_rules::load(Addresses {
            outside: self.address,
            host: self.host,
        })
    }

    /// The host's end.
    fn connect(&self, host: &mut Route) -> io::Result<()> {
        sysctl::set_if_there(&format!("ipv6/conf/{}/disable_ipv6", self.link), "1")?;
        sysctl::set(&format!("ipv4/conf/{}/forwarding", self.link), "1")?;
        let index = host.index(&self.link)?;
        host.bring_up(index, None, None)?;
        host.add_neighbour(index, self.address, UPLINK_MAC)?;
        // Last: with its route the slot is whole, and adoption looks for nothing else.
        host.add_host_route(self.address, index, self.host)
    }

    /// Whether it is there as a whole.
    pub(super) fn is_whole(&self) -> bool {
        let inside = || {
            netns::within(&self.netns, || {
                let mut route = Route::open()?;
                Ok(route.link(guest::TAP)?.is_some() && route.link(UPLINK)?.is_some())
            })
        };
        let routed = || {
            let mut route = Route::open()?;
            let index = route.index(&self.link)?;
            let to = self.address.into();
            io::Result::Ok(route.routes()?.contains(&(to, Some(index))))
        };
        netns::exists(&self.netns) && inside().unwrap_or(false) && routed().unwrap_or(false)
    }

    /// Whether somebody has its TAP open.
    pub(super) fn is_plugged(&self) -> bool {
        let carrier = || {
            netns::within(&self.netns, || {
                let tap = Route::open()?.link(guest::TAP)?;
                Ok(tap.is_some_and(|tap| tap.carrier))
            })
        };
        netns::exists(&self.netns) && carrier().unwrap_or(false)
    }

    /// Removes what is there of it.
    pub(super) fn remove(&self) -> Result<(), NetworkError> {
        let link = Route::open()
            .and_then(|mut route| route.remove_link(&self.link))
            .map_err(NetworkError::io("remove interface", &self.link));
        let netns = netns::remove(&self.netns)
            .map_err(NetworkError::io("remove namespace", self.netns.display()));
        let forgotten = self.forget();
        collect([link, netns, forgotten])
    }

    /// Deletes what the host's connection tracking knows of it.
    pub(super) fn forget(&self) -> Result<(), NetworkError> {
        conntrack::delete(|connection| connection.touches(self.address))
            .map(|_| ())
            .map_err(NetworkError::io("delete the connections of", self.address))
    }

    /// Makes it as new, and gives what its interface has counted so far.
    pub(super) fn clean(&self) -> Result<Traffic, NetworkError> {
        self.forget()?;
        netns::within(&self.netns, || {
            let mut route = Route::open()?;
            let tap = route.link(guest::TAP)?;
            if tap.ok_or(io::ErrorKind::NotFound)?.carrier {
                return Err(io::Error::other("a VMM still has its TAP open"));
            }
            route.forget_neighbours()?;
            shape::set(&Bandwidth::default())
        })
        .map_err(NetworkError::io("clean namespace", self.netns.display()))?;
        self.begin_count()
    }

    /// Notes on the link from where the next use is counted, so that a restarted daemon finds it.
    fn begin_count(&self) -> Result<Traffic, NetworkError> {
        let note = || {
            let mut route = Route::open()?;
            let link = route.link(&self.link)?.ok_or(io::ErrorKind::NotFound)?;
            let Traffic { rx_bytes, tx_bytes } = link.counted;
            route.set_alias(link.index, &format!("{rx_bytes} {tx_bytes}"))?;
            Ok(link.counted)
        };
        note().map_err(NetworkError::io("write the note of", &self.link))
    }

    /// What passed in the present use.
    pub(super) fn traffic(&self) -> Result<Traffic, NetworkError> {
        let read = || {
            Route::open()?
                .link(&self.link)?
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let link = read().map_err(NetworkError::io("read the counters of", &self.link))?;
        let mut base = link
            .alias
            .split(' ')
            .map(|number| number.parse().unwrap_or(0));
        let (rx, tx) = (base.next().unwrap_or(0), base.next().unwrap_or(0));
        // What the host's end sends is what the guest receives.
        Ok(Traffic {
            rx_bytes: link.counted.tx_bytes.saturating_sub(tx),
            tx_bytes: link.counted.rx_bytes.saturating_sub(rx),
        })
    }

    /// Sets its limits of speed.
    pub(super) fn shape(&self, bandwidth: &Bandwidth) -> Result<(), NetworkError> {
        netns::within(&self.netns, || shape::set(bandwidth)).map_err(NetworkError::io(
            "limit the bandwidth of",
            self.netns.display(),
        ))
    }
}

/// All errors of several steps.
pub(super) fn collect(
    done: impl IntoIterator<Item = Result<(), NetworkError>>,
) -> Result<(), NetworkError> {
    let mut errors: Vec<_> = done.into_iter().filter_map(Result::err).collect();
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(NetworkError::Teardown(errors)),
    }
}
