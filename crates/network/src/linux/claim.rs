//! Claiming a pool: the host's address, and a route that other daemons see.

use std::io;
use std::net::Ipv4Addr;

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
    let candidates = wanted.map_or_else(|| Pool::defaults().collect(), |pool| vec![pool]);
    for pool in &candidates {
        let found = overlap(&mut route, *pool).map_err(NetworkError::io("list", "routes"))?;
        if let Some(with) = found {
            clash = Some(with);
            continue;
        }
        match first(&mut route, &anchor, *pool) {
            Ok(()) => return Ok(*pool),
            // Another daemon was faster.
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                clash = Some(format!("a route to {pool}"));
                let _ = route.remove_link(&anchor);
            }
            Err(error) => return Err(NetworkError::io("claim pool", pool)(error)),
        }
    }
    Err(NetworkError::PoolClash {
        pool: match wanted {
            Some(pool) => pool.to_string(),
            None => "of addresses (every default)".to_owned(),
        },
        with: clash.unwrap_or_default(),
    })
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

/// Address or route of the host that shares addresses with `pool`.
fn overlap(route: &mut Route, pool: Pool) -> io::Result<Option<String>> {
    let address = route
        .addresses()?
        .into_iter()
        .find(|(_, net)| pool.overlaps(net.trunc()));
    if let Some((_, net)) = address {
        return Ok(Some(format!("the address {net}")));
    }
    let routed = route
        .routes()?
        .into_iter()
        .find(|(to, _)| to.prefix_len() > 0 && pool.overlaps(*to));
    Ok(routed.map(|(to, _)| format!("the route to {to}")))
}

/// Interfaces with a default route, and the smallest MTU among them.
pub(super) fn uplinks() -> io::Result<(Vec<String>, Option<u16>)> {
    let mut route = Route::open()?;
    let default = Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0).unwrap_or_default();
    let indexes: Vec<_> = route
        .routes()?
        .into_iter()
        .filter_map(|(to, out)| (to == default).then_some(out).flatten())
        .collect();
    let links: Vec<_> = route
        .links()?
        .into_iter()
        .filter(|link| indexes.contains(&link.index))
        .collect();
    let mtu = links
        .iter()
        .filter_map(|link| u16::try_from(link.mtu).ok())
        .min();
    Ok((links.into_iter().map(|link| link.name).collect(), mtu))
}
