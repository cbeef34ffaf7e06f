//! Whether processes of the host use a port.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::{BadPolicy, NetworkError, Policy, Protocol, Publish};

/// Refuses ports of `policy` that are new and in use. Asking is binding for a moment.
pub(super) fn refuse_busy(policy: &Policy, old: Option<&Policy>) -> Result<(), NetworkError> {
    let is_new = |port: &&Publish| {
        // One that only changes its address is its own already: whoever listens there does so for it.
        old.is_none_or(|old| {
            let same = |other: &Publish| other.key().conflicts(&port.key());
            !old.publish.iter().any(same)
        })
    };
    for port in policy.publish.iter().filter(is_new) {
        let at = (
            port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED),
            port.host_port,
        );
        let bound = match port.protocol {
            Protocol::Tcp => TcpListener::bind(at).map(drop),
            Protocol::Udp => UdpSocket::bind(at).map(drop),
        };
        match bound {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(BadPolicy::HostIp(at.0).into());
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(NetworkError::PortInUse {
                    protocol: port.protocol,
                    port: port.host_port,
                    by: "a process of the host".to_owned(),
                });
            }
            Err(error) => {
                return Err(NetworkError::io("try port", port.host_port)(error));
            }
        }
    }
    Ok(())
}
