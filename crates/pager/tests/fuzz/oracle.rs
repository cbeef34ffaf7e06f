//! What a handshake says, found in another way: by numbers that cannot overflow, and every pair looked at.

use pager::{MAX_HANDSHAKE_BYTES, Region};
use serde_json::Value;

/// Names of a region's fields; the fourth one may be missing.
const FIELDS: [&str; 5] = [
    "base_host_virt_addr",
    "size",
    "offset",
    "page_size",
    "page_size_kib",
];

/// Regions that `text` names, by address; `None` if it must be refused.
pub(crate) fn regions(text: &str, ram_bytes: u64) -> Option<Vec<Region>> {
    if text.len() > MAX_HANDSHAKE_BYTES {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let mut regions = Vec::new();
    let mut keys = 0;
    for entry in value.as_array()? {
        let fields = entry.as_object()?;
        keys += fields.len();
        regions.push(region(fields)?);
    }
    // Nothing else in such a text has colons: more of them are keys that appear twice.
    if text.matches(':').count() != keys || !(1..=64).contains(&regions.len()) {
        return None;
    }
    let fits = |region: &Region| {
        let ends = [
            (region.offset, u128::from(ram_bytes)),
            (region.address, u128::from(u64::MAX)),
        ];
        region.bytes > 0
            && [region.address, region.bytes, region.offset]
                .iter()
                .all(|number| number % region.page_bytes == 0)
            && ends
                .iter()
                .all(|(start, end)| u128::from(*start) + u128::from(region.bytes) <= *end)
    };
    let clash = |one: u64, two: u64, a: &Region, b: &Region| {
        u128::from(one) < u128::from(two) + u128::from(b.bytes)
            && u128::from(two) < u128::from(one) + u128::from(a.bytes)
    };
    let apart = |(nth, a): (usize, &Region)| {
        regions[..nth]
            .iter()
            .all(|b| !clash(a.address, b.address, a, b) && !clash(a.offset, b.offset, a, b))
    };
    let sound = regions.iter().all(fits) && regions.iter().enumerate().all(apart);
    regions.sort_by_key(|region| region.address);
    sound.then_some(regions)
}

fn region(fields: &serde_json::Map<String, Value>) -> Option<Region> {
    if fields.keys().any(|key| !FIELDS.contains(&key.as_str())) {
        return None;
    }
    let number = |name: &str| fields.get(name)?.as_u64();
    let older = number("page_size_kib")?;
    let page_bytes = match fields.get("page_size") {
        // Nothing and `null` are the same.
        None | Some(Value::Null) => older,
        Some(newer) => newer.as_u64()?,
    };
    let region = Region {
        address: number("base_host_virt_addr")?,
        bytes: number("size")?,
        offset: number("offset")?,
        page_bytes,
    };
    (page_bytes == older && [4096, 2 << 20].contains(&page_bytes)).then_some(region)
}
