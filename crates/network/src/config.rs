//! How a network is set up.

use std::fmt;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Pool;

/// Eight hexadecimal digits in the name of everything that one daemon makes on a host.
///
/// Two daemons with different marks do not touch each other's objects.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark(String);

/// A mark that is not eight lower-case hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a mark is eight lower-case hexadecimal digits, not {0:?}")]
pub struct BadMark(String);

impl Mark {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Mark {
    type Err = BadMark;

    fn from_str(text: &str) -> Result<Self, BadMark> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 8 && text.bytes().all(digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadMark(text.to_owned()))
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a network is opened with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Mark of the daemon.
    pub mark: Mark,
    /// Directory shared by all daemons of the host, `/run/coppice`; each has a directory named as its mark in it.
    pub run_root: PathBuf,
    /// Outside addresses; `None` takes the first of [`Pool::defaults`] that is free on this host.
    pub pool: Option<Pool>,
    /// How many slots are kept prepared. A burst that takes up to three quarters of them waits for nothing.
    pub ready: usize,
    /// Where DNS for guests is served. Queries to the gateway go there; `None` drops them.
    ///
    /// A loopback address does not work. The unspecified address stands for [`Pool::host`], on which the server
    /// sees a guest's outside address as the sender.
    pub dns: Option<SocketAddrV4>,
    /// MTU of guests in bytes; `None` takes that of the host's default route, or 1500.
    pub mtu: Option<u16>,
}

impl Config {
    /// Settings for `mark` below `run_root`, everything else as by default.
    pub fn new(mark: Mark, run_root: PathBuf) -> Self {
        Self {
            mark,
            run_root,
            pool: None,
            ready: 32,
            dns: None,
            mtu: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_eight_digits() {
        assert_eq!("00c0ffee".parse::<Mark>().unwrap().as_str(), "00c0ffee");
        for bad in ["", "00c0ffe", "00c0ffee0", "00C0FFEE", "../../ab"] {
            assert!(bad.parse::<Mark>().is_err(), "{bad}");
        }
    }
}
