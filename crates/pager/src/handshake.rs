//! What Firecracker says when it hands over guest RAM: one JSON message with one descriptor, nothing is answered.
//!
//! The text comes from a process that runs hostile guests, so it is read strictly and bounded.

use serde::Deserialize;

use crate::regions::{MAX_REGIONS, Region, RegionError, Regions};

/// Longest message taken. A region takes about 110 bytes.
pub const MAX_HANDSHAKE_BYTES: usize = 16 << 10;

const _: () = assert!(MAX_HANDSHAKE_BYTES >= MAX_REGIONS * 160);

/// Why a handshake is refused.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// Longer than [`MAX_HANDSHAKE_BYTES`].
    #[error("a message of {bytes} bytes, at most {MAX_HANDSHAKE_BYTES} are taken")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not the JSON that is expected.
    #[error("unreadable message: {0}")]
    Syntax(String),
    /// The two spellings of the page size say different things.
    #[error("page_size is {page_size} and page_size_kib {page_size_kib}")]
    PageSizes {
        /// As found.
        page_size: u64,
        /// As found.
        page_size_kib: u64,
    },
    /// The regions cannot be those of a machine with this image.
    #[error(transparent)]
    Regions(#[from] RegionError),
}

/// One memory region as Firecracker writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    offset: u64,
    /// Bytes. Missing in versions before 1.10.
    page_size: Option<u64>,
    /// The older name of the same. It is in bytes too, whatever it is called.
    page_size_kib: u64,
}

/// Reads a handshake and checks it against the size of the image's RAM.
pub fn parse(text: &str, ram_bytes: u64) -> Result<Regions, HandshakeError> {
    if text.len() > MAX_HANDSHAKE_BYTES {
        return Err(HandshakeError::TooLong { bytes: text.len() });
    }
    let mappings: Vec<Mapping> =
        serde_json::from_str(text).map_err(|error| HandshakeError::Syntax(error.to_string()))?;
    let region = |mapping: Mapping| {
        let page_bytes = mapping.page_size.unwrap_or(mapping.page_size_kib);
        if page_bytes != mapping.page_size_kib {
            return Err(HandshakeError::PageSizes {
                page_size: page_bytes,
                page_size_kib: mapping.page_size_kib,
            });
        }
        Ok(Region {
            address: mapping.base_host_virt_addr,
            bytes: mapping.size,
            offset: mapping.offset,
            page_bytes,
        })
    };
    let regions = mappings.into_iter().map(region).collect::<Result<_, _>>()?;
    Ok(Regions::new(regions, ram_bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message of Firecracker 1.12.1 for 128 MiB.
    const REAL: &str = r#"[{"base_host_virt_addr":140007920832512,"size":134217728,"offset":0,"page_size":4096,"page_size_kib":4096}]"#;
    const RAM: u64 = 128 << 20;

    #[test]
    fn reads_what_firecracker_sends() {
        let regions = parse(REAL, RAM).unwrap();
        let wanted = Region {
            address: 140_007_920_832_512,
            bytes: RAM,
            offset: 0,
            page_bytes: 4096,
        };
        assert_eq!(regions.iter().collect::<Vec<_>>(), [wanted]);
    }

    #[test]
    fn refuses_everything_else() {
        let replaced = |from: &str, to: &str| REAL.replace(from, to);
        for text in [
            String::new(),
            "[]".into(),
            "{}".into(),
            "[[1,2,3,4,5]]".into(),
            format!("{REAL}{REAL}"),
            format!("{REAL} x"),
            replaced("offset\":0", "offset\":-1"),
            replaced("offset\":0", "offset\":0.5"),
            replaced("offset\":0", "offset\":\"0\""),
            replaced("offset\":0", "offset\":18446744073709551616"),
            replaced("offset\":0", "offset\":4096"),
            replaced("offset\":0", "offset\":0,\"offset\":0"),
            replaced("offset\":0", "offset\":0,\"more\":0"),
            replaced("\"offset\":0,", ""),
            replaced("page_size\":4096", "page_size\":2097152"),
            replaced("134217728", "0"),
            replaced("134217728", "268435456"),
            format!("{REAL}{}", " ".repeat(MAX_HANDSHAKE_BYTES)),
        ] {
            assert!(parse(&text, RAM).is_err(), "accepted: {text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = parse(&text, RAM);
        }

        /// One byte of a real message changed: it is refused, or what it says is still inside RAM.
        #[test]
        fn a_changed_message_never_leaves_ram(at in 0..REAL.len(), byte in 0x20_u8..0x7f) {
            let mut bytes = REAL.as_bytes().to_vec();
            bytes[at] = byte;
            let text = String::from_utf8(bytes).unwrap();
            if let Ok(regions) = parse(&text, RAM) {
                for region in regions.iter() {
                    prop_assert!(region.offset + region.bytes <= RAM);
                    prop_assert!(region.address.checked_add(region.bytes).is_some());
                    prop_assert!(region.bytes > 0 && region.bytes % 4096 == 0);
                }
            }
        }
    }
}
