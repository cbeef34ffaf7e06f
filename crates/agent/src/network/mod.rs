//! The machine's network, from its first start on.
//!
//! A memory image keeps all of it: the card with its address, routes, neighbours, listening sockets.
//! The addresses inside are the same in every fork, so a machine that wakes has nothing to set up.

mod card;
mod connections;
mod netlink;

use std::fs::File;
use std::io;

use protocol::GuestNetwork;

use crate::{identity, root};

pub(crate) use card::loopback_up;

/// Name of the resolver's configuration and where it is mounted.
const RESOLVER: (&str, &str) = ("resolv.conf", "/etc/resolv.conf");

/// The network of a machine that has one.
#[derive(Debug)]
pub(crate) struct Network {
    config: GuestNetwork,
    /// Stays the image's own until name servers are told.
    resolver: Option<File>,
}

impl Network {
    /// Sets the card of a freshly booted machine up.
    pub(crate) fn bring_up(config: GuestNetwork) -> io::Result<Self> {
        card::configure(&config, None)?;
        let mut network = Network {
            config,
            resolver: None,
        };
        network.write_resolver()?;
        Ok(network)
    }

    pub(crate) fn config(&self) -> &GuestNetwork {
        &self.config
    }

    /// The machine woke from a memory image: takes what is new of `config`, and lets go of the other
    /// machine's connections when it is a new one.
    pub(crate) fn wake(
        &mut self,
        config: Option<&GuestNetwork>,
        new_machine: bool,
    ) -> io::Result<()> {
        if let Some(config) = config.filter(|config| **config != self.config) {
            card::configure(config, Some(&self.config))?;
            self.config = config.clone();
            self.write_resolver()?;
        }
        if new_machine {
            connections::abort_all()?;
        }
        Ok(())
    }

    /// Does of [`Network::wake`] what changes nothing.
    pub(crate) fn rehearse(&self) {
        connections::rehearse();
    }

    fn write_resolver(&mut self) -> io::Result<()> {
        if self.config.dns.is_empty() {
            return Ok(());
        }
        let file = match &self.resolver {
            Some(file) => file,
            None => self
                .resolver
                .insert(root::mount_file(RESOLVER.0, RESOLVER.1)?),
        };
        identity::replace(file, resolver_text(&self.config))
    }
}

fn resolver_text(config: &GuestNetwork) -> String {
    let mut text = String::new();
    if !config.search.is_empty() {
        text.push_str(&format!("search {}\n", config.search.join(" ")));
    }
    for server in &config.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_told_in_its_words() {
        let config = GuestNetwork {
            address: [10, 0, 0, 2].into(),
            prefix: 30,
            gateway: [10, 0, 0, 1].into(),
            mtu: 1500,
            dns: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            search: vec!["a.internal".into(), "b".into()],
        };
        assert_eq!(
            resolver_text(&config),
            "search a.internal b\nnameserver 10.0.0.1\nnameserver fd00::1\n"
        );
    }
}
