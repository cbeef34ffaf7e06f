//! Connections of daemons: taken, read, written to, closed.

use std::os::fd::AsFd;

use super::connection::{Connection, would_block};
use super::poller::{Interest, Token};
use super::server::Server;
use crate::control::{Filled, FromPager, PagerEvent};

/// Daemons at once: one, and one that replaces it, and somebody who looks.
const MAX_CONNECTIONS: usize = 4;

impl Server {
    /// Tells every daemon that said hello.
    pub(super) fn announce(&mut self, event: &PagerEvent) {
        let mut broken = Vec::new();
        for (key, connection) in &mut self.connections {
            let message = FromPager::Event(event.clone());
            if connection.greeted && connection.push(&message, Vec::new()).is_err() {
                broken.push(*key);
            }
        }
        broken.into_iter().for_each(|key| self.disconnect(key));
    }

    pub(super) fn accept(&mut self) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else {
            return;
        };
        let allowed = rustix::net::sockopt::socket_peercred(&socket)
            .is_ok_and(|peer| peer.uid.as_raw() == self.owner_uid || peer.uid.is_root());
        if !allowed || self.connections.len() >= MAX_CONNECTIONS {
            tracing::warn!("a connection was refused");
            return;
        }
        let key = self.new_key();
        if self.poller.add(&socket, Token::Control(key)).is_ok() {
            self.connections.insert(key, Connection::new(socket));
        }
    }

    pub(super) fn read_control(&mut self, key: u32) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        match connection.read() {
            Ok(Filled::Some) => {}
            Ok(Filled::Closed) => return self.disconnect(key),
            Err(error) => {
                tracing::warn!(%error, "a connection broke");
                return self.disconnect(key);
            }
        }
        // Each request may end the connection.
        while let Some(connection) = self.connections.get_mut(&key) {
            match connection.next_request() {
                Ok(Some(request)) => self.answer(key, request),
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "a request cannot be read");
                    return self.disconnect(key);
                }
            }
        }
    }

    pub(super) fn disconnect(&mut self, key: u32) {
        if let Some(connection) = self.connections.remove(&key) {
            self.poller.remove(&connection.socket);
        }
    }

    pub(super) fn flush(&mut self) {
        let mut broken = Vec::new();
        for (key, connection) in &mut self.connections {
            let interest = match connection.flush() {
                Ok(true) => Interest::ReadWrite,
                Ok(false) => Interest::Read,
                Err(error) => {
                    if !would_block(&error) {
                        broken.push(*key);
                    }
                    continue;
                }
            };
            if connection.interest != interest {
                connection.interest = interest;
                let fd = connection.socket.as_fd();
                let changed = self.poller.change(fd, Token::Control(*key), interest);
                if changed.is_err() {
                    broken.push(*key);
                }
            }
        }
        broken.into_iter().for_each(|key| self.disconnect(key));
    }
}
