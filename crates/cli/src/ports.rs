//! Ports on the command line and in tables, written as Docker writes them.

use std::net::Ipv4Addr;

use api::instances::{PublishedPort, Transport};

/// Reads `[HOST_IP:]HOST_PORT:PORT[/udp]`.
pub(crate) fn parse_port(text: &str) -> Result<PublishedPort, String> {
    let (ports, protocol) = match text.split_once('/') {
        None => (text, Transport::Tcp),
        Some((ports, "tcp")) => (ports, Transport::Tcp),
        Some((ports, "udp")) => (ports, Transport::Udp),
        Some((_, other)) => return Err(format!("{other:?} is neither tcp nor udp")),
    };
    if ports.contains('[') {
        return Err("ports are published on IPv4 addresses only".to_owned());
    }
    let words: Vec<&str> = ports.split(':').collect();
    let (host_ip, host_port, port) = match words[..] {
        [ip, host_port, port] => (Some(ip), host_port, port),
        [host_port, port] => (None, host_port, port),
        _ => return Err("give the host's port and the instance's: HOST_PORT:PORT".to_owned()),
    };
    if let Some(ip) = host_ip
        && ip.parse::<Ipv4Addr>().is_err()
    {
        return Err(format!("{ip:?} is no IPv4 address of the host"));
    }
    Ok(PublishedPort {
        host_ip: host_ip.map(str::to_owned),
        host_port: number(host_port)?,
        port: number(port)?,
        protocol,
    })
}

/// A port of a host or an instance.
pub(crate) fn number(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is no port; ports are 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// `0.0.0.0:8080->80/tcp`.
pub(crate) fn shown(port: &PublishedPort) -> String {
    let ip = port.host_ip.as_deref().unwrap_or("0.0.0.0");
    let protocol = match port.protocol {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    format!("{ip}:{}->{}/{protocol}", port.host_port, port.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        for (text, seen) in [
            ("8080:80", "0.0.0.0:8080->80/tcp"),
            ("8080:80/tcp", "0.0.0.0:8080->80/tcp"),
            ("127.0.0.1:53:5353/udp", "127.0.0.1:53->5353/udp"),
        ] {
            assert_eq!(shown(&parse_port(text).expect(text)), seen);
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_a_reason() {
        for (text, reason) in [
            ("80", "HOST_PORT:PORT"),
            ("", "HOST_PORT:PORT"),
            ("1:2:3:4", "HOST_PORT:PORT"),
            ("8000-8010:80", "1 to 65535"),
            ("0:80", "1 to 65535"),
            ("80:65536", "1 to 65535"),
            ("80:", "1 to 65535"),
            ("localhost:80:80", "no IPv4 address"),
            (":80:80", "no IPv4 address"),
            ("[::1]:80:80", "IPv4 addresses only"),
            ("80:80/sctp", "neither tcp nor udp"),
            ("80:80/tcp/tcp", "neither tcp nor udp"),
        ] {
            let error = parse_port(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
