//! The guest's end of its network.

use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use guest::GuestNetwork;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::network::{HOST, Network};

/// Address of the guest in every namespace.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

/// Well above what a guest needs to answer on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);

/// The network as the guest is told it.
pub(crate) fn for_guest() -> GuestNetwork {
    GuestNetwork {
        address: GUEST,
        prefix: 24,
        gateway: HOST,
        mtu: 1400,
        dns: vec![HOST.into()],
        search: vec!["test.internal".into()],
    }
}

/// A connection to the guest.
pub(crate) fn connect(network: &Network, port: u16) -> TcpStream {
    let namespace = File::open(network.nic().netns).unwrap();
    let connect = move || {
        let kind = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(namespace.as_fd(), kind).unwrap();
        TcpStream::connect_timeout(&(GUEST, port).into(), PATIENCE).unwrap()
    };
    // Namespaces belong to threads.
    let stream = std::thread::spawn(connect).join().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
