//! Limits of speed: a token bucket on each of the two interfaces of a slot.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};

use super::nla::Attributes;
use super::route::{Route, absent};
use super::slot_rules::UPLINK;
use crate::{Bandwidth, guest};

/// `RTM_NEWQDISC`, `RTM_DELQDISC`.
const NEW: u16 = 36;
const DELETE: u16 = 37;
/// `TC_H_ROOT`.
const ROOT: u32 = 0xffff_ffff;
/// Handle `1:`.
const HANDLE: u32 = 1 << 16;
/// Longest time a packet waits in the queue, in milliseconds.
const LATENCY: u64 = 50;
/// Bytes that pass at once: a tenth of a second's worth, and at least a whole segmented packet of 64 KiB.
const SMALLEST_BURST: u64 = 64 << 10;

/// Sets the limits of the slot whose namespace the calling thread is in.
pub(super) fn set(bandwidth: &Bandwidth) -> io::Result<()> {
    let mut route = Route::open()?;
    // Each interface limits what it sends: the TAP to the guest, the veth from it.
    for (name, rate) in [(guest::TAP, bandwidth.download), (UPLINK, bandwidth.upload)] {
        let index = route.index(name)?;
        match rate {
            Some(rate) => route.ask_raw(NEW, NLM_F_CREATE | NLM_F_REPLACE, &bucket(index, rate))?,
            None => clear(&mut route, index)?,
        }
    }
    Ok(())
}

fn clear(route: &mut Route, index: u32) -> io::Result<()> {
    match absent(route.ask_raw(DELETE, 0, &header(index, 0))) {
        // There was only the default queue.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        other => other,
    }
}

fn bucket(index: u32, bits: u64) -> Vec<u8> {
    let rate = bits / 8;
    let burst = (rate / 10).clamp(SMALLEST_BURST, u32::MAX.into());
    let limit = (rate * LATENCY / 1000 + burst).min(u32::MAX.into());
    let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    // struct tc_tbf_qopt: two tc_ratespec of 12 bytes (link layer Ethernet; the second, for peaks, is not used), then
    // limit, buffer and mtu; the buffer is given in bytes below.
    let mut options = vec![0_u8; 36];
    options[1] = 1;
    options[8..12].copy_from_slice(&short(rate).to_ne_bytes());
    options[24..28].copy_from_slice(&short(limit).to_ne_bytes());
    let mut inner = Attributes::default()
        .put(1, &options)
        .put(6, &short(burst).to_ne_bytes());
    if rate >= u32::MAX.into() {
        // TCA_TBF_RATE64.
        inner = inner.put(4, &rate.to_ne_bytes());
    }
    Attributes::after(&header(index, HANDLE))
        .text(1, "tbf")
        .nest(2, &inner)
        .bytes()
        .to_vec()
}

/// `struct tcmsg`.
fn header(index: u32, handle: u32) -> Vec<u8> {
    [0, index, handle, ROOT, 0].map(u32::to_ne_bytes).concat()
}
