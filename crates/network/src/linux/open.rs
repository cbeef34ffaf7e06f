//! Opening a network: what is held is taken over, everything else of the mark is removed.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use tokio::sync::Notify;

use super::inner::{Inner, elements_of};
use super::kernel::Kernel;
use super::slot::SlotPlan;
use super::uplinks::{self, Listener};
use super::{check, claim, leftovers};
use crate::plan::{Book, Names};
use crate::{Bandwidth, Config, Held, Leftover, LeftoverKind, NetworkError, Opened, Pool};

/// MTU of hosts without a default route, that of Ethernet.
const ETHERNET: u16 = 1500;

pub(super) fn open(
    config: &Config,
    held: &[Held],
) -> Result<(Inner, Listener, Opened), NetworkError> {
    let (fatal, lacks): (Vec<_>, Vec<_>) = check::check().into_iter().partition(|lack| lack.fatal);
    if !fatal.is_empty() {
        return Err(NetworkError::NotReady(fatal));
    }
    let mut opened = Opened {
        lacks,
        ..Opened::default()
    };
    let names = Names::new(config);
    directories(&names)?;
    let lock = leftovers::lock(&names)?.ok_or_else(|| NetworkError::MarkInUse {
        mark: names.mark().to_string(),
    })?;
    let pool = claim::claim(&names, config.pool)?;
    let listener = Listener::open().map_err(NetworkError::io("listen to", "routes"))?;
    let (uplinks, mtu) = uplinks::uplinks().map_err(NetworkError::io("list", "routes"))?;
    let mtu = config.mtu.or(mtu).unwrap_or(ETHERNET);
    let mut book = Book::new(pool);
    for one in held {
        if !book.hold(one) {
            opened.lost.push(one.slot);
        }
    }
    let used: Vec<_> = book
        .used()
        .map(|(slot, _, policy)| (slot, policy.bandwidth))
        .collect();
    let elements = used
        .iter()
        .map(|(slot, _)| (*slot, elements_of(&names, &book, *slot)));
    // Before anything is removed or made: what runs goes on, and what is nobody's is cut off.
    let mut kernel = Kernel::load(&names, pool, dns(config, pool), elements.collect())?;
    let objects = leftovers::all(names.run_root())?;
    keep_plugged(&names, &objects, &mut book, &mut opened);
    remove_unowned(&names, &objects, &book, &mut opened)?;
    for (slot, bandwidth) in used {
        let Some(plan) = SlotPlan::new(&names, pool, mtu, slot) else {
            continue;
        };
        if let Err(error) = take_over(&plan, bandwidth, &mut opened) {
            tracing::error!(%error, %slot, "a slot in use cannot be made again");
            let _ = book.give_back(slot);
            book.removed(slot);
            kernel.apply(slot, elements_of(&names, &book, slot))?;
            opened.lost.push(slot);
        }
    }
    let (changed, lacks) = uplinks::forward(&uplinks);
    opened.changed.extend(changed);
    opened.lacks.extend(lacks);
    let inner = Inner {
        names,
        pool,
        mtu,
        ready: config.ready,
        book: Mutex::new(book),
        kernel: Mutex::new(kernel),
        dirty: Mutex::new(VecDeque::new()),
        work: Notify::new(),
        freed: Notify::new(),
        _lock: lock,
    };
    Ok((inner, listener, opened))
}

fn directories(names: &Names) -> Result<(), NetworkError> {
    let dir = names.netns_dir();
    fs::create_dir_all(&dir)
        .and_then(|()| fs::set_permissions(names.run_dir(), fs::Permissions::from_mode(0o700)))
        .map_err(NetworkError::io("make directory", dir.display()))
}

fn dns(config: &Config, pool: Pool) -> Option<SocketAddrV4> {
    config.dns.map(|server| {
        if server.ip().is_unspecified() {
            SocketAddrV4::new(pool.host(), server.port())
        } else {
            server
        }
    })
}

/// A VMM in a slot that nobody holds may be one whose record cannot be read now: without its namespace it would be cut
/// off for ever.
fn keep_plugged(names: &Names, objects: &BTreeSet<Leftover>, book: &mut Book, opened: &mut Opened) {
    for object in objects {
        if object.kind != LeftoverKind::Namespace || object.mark != names.mark().as_str() {
            continue;
        }
        let plan = leftovers::slot_of(names, object)
            .filter(|slot| book.get(*slot).is_none())
            .and_then(|slot| SlotPlan::new(names, book.pool(), ETHERNET, slot));
        if let Some(plan) = plan.filter(SlotPlan::is_plugged) {
            book.stray(plan.slot);
            opened.astray.push(plan.slot);
        }
    }
}

fn remove_unowned(
    names: &Names,
    objects: &BTreeSet<Leftover>,
    book: &Book,
    opened: &mut Opened,
) -> Result<(), NetworkError> {
    for object in objects {
        if object.mark != names.mark().as_str()
            || object.kind == LeftoverKind::Table
            || object.name == names.anchor()
        {
            continue;
        }
        let slot = leftovers::slot_of(names, object);
        if slot.is_some_and(|slot| book.is_made(slot)) {
            continue;
        }
        match leftovers::remove(object) {
            Ok(()) => opened.removed.push(object.clone()),
            // It is tried again when a slot of this number is made, and the doctor tells it.
            Err(error) => {
                tracing::warn!(%error, name = object.name, "a leftover cannot be removed");
            }
        }
        if let Some(plan) = slot.and_then(|slot| SlotPlan::new(names, book.pool(), ETHERNET, slot))
            && let Err(error) = plan.forget()
        {
            tracing::warn!(%error, "connections of a leftover remain");
        }
    }
    Ok(())
}

fn take_over(
    plan: &SlotPlan,
    bandwidth: Bandwidth,
    opened: &mut Opened,
) -> Result<(), NetworkError> {
    if plan.is_whole() {
        opened.adopted.push(plan.slot);
    } else {
        plan.make()?;
        opened.remade.push(plan.slot);
    }
    plan.shape(&bandwidth)
}
