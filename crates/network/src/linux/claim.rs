//! Claiming a pool: the host's address, and a route that other daemons see.

use std::io;

use ipnet::Ipv4Net;

use super::route::Route;
use super::{sys, sysctl};
use crate::plan::Names;
use crate::{NetworkError, Pool};

/// Takes the wanted pool, the one claimed before, or the first default that is free.
pub(super) fn claim(names: &Names, wanted: Option<Pool>) -> Result<Pool, NetworkError> {
    let anchor = names.anchor();
    let mut route = Route::open().map_err(NetworkError::io("open", "rtnetlink"))?;
    let claimed =
        claimed(&mut route, &anchor).map_err(NetworkError::io("read the address of", &anchor))?;
    if let Some(pool) = claimed {
        if wanted.is_none_or(|wanted| wanted == pool) && again(&mut route, &anchor, pool).is_ok() {
            return Ok(pool);
        }
        release(names, Some(pool))?;
    }
    let mut clash = None;
    for pool in candidates(wanted) {
        let found = overlap(&mut route, pool, None).map_err(NetworkError::io("list", "routes"))?;
        if let Some(with) = found {
            clash = Some(with);
            continue;
        }
        match first(&mut route, &anchor, pool) {
            Ok(()) => return Ok(pool),
            // Another daemon was faster.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                clash = Some(format!("a route to {pool}"));
                let _ = route.remove_link(&anchor);
            }
            Err(error) => return Err(NetworkError::io("claim pool", pool)(error)),
        }
    }
    Err(clashes(wanted, clash))
}

/// The pool of a network, as far as it can be told without opening one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// Claimed under these names, by a daemon that runs or takes it up again when it starts.
    Claimed(Pool),
    /// What opening would claim now.
    Free(Pool),
}

/// The pool that a network with these names has, or would take. For `coppice doctor`: nothing is changed.
pub fn prospect(names: Option<&Names>, wanted: Option<Pool>) -> Result<Prospect, NetworkError> {
    let mut route = Route::open().map_err(NetworkError::io("open", "rtnetlink"))?;
    let own = match names.map(Names::anchor) {
        Some(anchor) => claimed(&mut route, &anchor)
            .map_err(NetworkError::io("read the address of", &anchor))?,
        None => None,
    };
    if let Some(pool) = own.filter(|own| wanted.is_none_or(|wanted| wanted == *own)) {
        return Ok(Prospect::Claimed(pool));
    }
    let mut clash = None;
    for pool in candidates(wanted) {
        // A claim on another pool ends when the network is opened.
        clash = overlap(&mut route, pool, own).map_err(NetworkError::io("list", "routes"))?;
        if clash.is_none() {
            return Ok(Prospect::Free(pool));
        }
    }
    Err(clashes(wanted, clash))
}

fn candidates(wanted: Option<Pool>) -> Vec<Pool> {
    wanted.map_or_else(|| Pool::defaults().collect(), |pool| vec![pool])
}

fn clashes(wanted: Option<Pool>, with: Option<String>) -> NetworkError {
    NetworkError::PoolClash {
        pool: match wanted {
            Some(pool) => pool.to_string(),
            None => "of addresses (every default)".to_owned(),
        },
        with: with.unwrap_or_default(),
    }
}

/// Ends the claim on a pool; with `None` on the one that the anchor tells.
pub(super) fn release(names: &Names, pool: Option<Pool>) -> Result<(), NetworkError> {
    let anchor = names.anchor();
    let end = || {
        let mut route = Route::open()?;
        let pool = match pool {
            Some(pool) => Some(pool),
            None => claimed(&mut route, &anchor)?,
        };
        // The anchor last: it is how the claim is found.
        if let Some(pool) = pool {
            route.unclaim(pool.block())?;
        }
        route.remove_link(&anchor)
    };
    end().map_err(NetworkError::io("remove interface", &anchor))
}

fn claimed(route: &mut Route, anchor: &str) -> io::Result<Option<Pool>> {
    let Some(link) = route.link(anchor)? else {
        return Ok(None);
    };
    let addresses = route.addresses()?;
    let block = addresses
        .into_iter()
        .find(|(index, _)| *index == link.index);
    Ok(block.and_then(|(_, net)| Pool::new(net).ok()))
}

/// Completes an own claim, which may have been cut off in the middle.
fn again(route: &mut Route, anchor: &str, pool: Pool) -> io::Result<()> {
    let index = route.index(anchor)?;
    route.bring_up(index, None, None)?;
    match route.claim(pool.block()) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        _ => Ok(()),
    }
}

fn first(route: &mut Route, anchor: &str, pool: Pool) -> io::Result<()> {
    // A TAP that nobody opens has an address like any interface, and needs no module of the kernel that slots
    // do not need.
    sys::make_tap(anchor)?;
    sysctl::set_if_there(&format!("ipv6/conf/{anchor}/disable_ipv6"), "1")?;
    let index = route.index(anchor)?;
    route.claim(pool.block())?;
    route.add_address(index, pool.host(), pool.block().prefix_len())?;
    route.bring_up(index, None, None)
}

/// Address or route of the host that shares addresses with `pool`, those of an `own` pool aside.
fn overlap(route: &mut Route, pool: Pool, own: Option<Pool>) -> io::Result<Option<String>> {
    let shares =
        |net: Ipv4Net| pool.overlaps(net) && !own.is_some_and(|own| own.block().contains(&net));
    let address = route
        .addresses()?
        .into_iter()
        .find(|(_, net)| shares(net.trunc()));
    if let Some((_, net)) = address {
        return Ok(Some(format!("the address {net}")));
    }
    let routed = route
        .routes()?
        .into_iter()
        .find(|(to, _)| to.prefix_len() > 0 && shares(*to));
    Ok(routed.map(|(to, _)| format!("the route to {to}")))
}
