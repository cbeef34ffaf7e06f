//! Where a VMM has mapped guest RAM: addresses to pages and back. Pure.

use memory::{PAGE_BYTES, Run};

/// Regions a VMM may have. Firecracker has one or two, each hole in guest RAM adds one.
pub(crate) const MAX_REGIONS: usize = 64;

/// Sizes of host pages that guest RAM can be made of, in bytes. Larger ones would have to be put together in memory.
const PAGE_SIZES: [u64; 2] = [4 << 10, 2 << 20];

/// A mapping of guest RAM in the VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Address in the VMM.
    pub address: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Offset in guest RAM, in bytes.
    pub offset: u64,
    /// Size of the host's pages under it, in bytes.
    pub page_bytes: u64,
}

impl Region {
    /// Its pages, counted in units of [`PAGE_BYTES`] of guest RAM.
    pub(crate) fn run(self) -> Run {
        Run {
            first: self.offset / PAGE_BYTES as u64,
            count: self.bytes / PAGE_BYTES as u64,
        }
    }

    /// Pages that must be filled at once.
    pub(crate) fn unit_pages(self) -> u64 {
        self.page_bytes / PAGE_BYTES as u64
    }
}

/// Why regions cannot be those of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// None, or too many.
    #[error("{count} memory regions, not 1 to {MAX_REGIONS}")]
    Count {
        /// How many there are.
        count: usize,
    },
    /// A page size that no host has.
    #[error("page size {found}")]
    PageSize {
        /// Size in bytes.
        found: u64,
    },
    /// Empty, beyond the end of an address space or of RAM, or not made of whole pages.
    #[error("a region of {bytes} bytes at {address:#x}, offset {offset}, does not fit")]
    Bounds {
        /// Address in the VMM.
        address: u64,
        /// Length in bytes.
        bytes: u64,
        /// Offset in guest RAM.
        offset: u64,
    },
    /// Two regions have an address or a page of RAM in common.
    #[error("memory regions overlap")]
    Overlap,
}

/// All regions of a machine, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Regions(Vec<Region>);

impl Regions {
    /// Checks regions that a VMM named against the size of the image's RAM.
    pub fn new(mut regions: Vec<Region>, ram_bytes: u64) -> Result<Self, RegionError> {
        if regions.is_empty() || regions.len() > MAX_REGIONS {
            return Err(RegionError::Count {
                count: regions.len(),
            });
        }
        for region in &regions {
            let Region {
                address,
                bytes,
                offset,
                page_bytes,
            } = *region;
            if !PAGE_SIZES.contains(&page_bytes) {
                return Err(RegionError::PageSize { found: page_bytes });
            }
            let whole = [address, bytes, offset]
                .iter()
                .all(|number| number % page_bytes == 0);
            let inside = address.checked_add(bytes).is_some()
                && offset
                    .checked_add(bytes)
                    .is_some_and(|end| end <= ram_bytes);
            if bytes == 0 || !whole || !inside {
                return Err(RegionError::Bounds {
                    address,
                    bytes,
                    offset,
                });
            }
        }
        regions.sort_unstable_by_key(|region| region.offset);
        let offsets_clash = |pair: &[Region]| pair[0].offset + pair[0].bytes > pair[1].offset;
        if regions.windows(2).any(offsets_clash) {
            return Err(RegionError::Overlap);
        }
        regions.sort_unstable_by_key(|region| region.address);
        let addresses_clash = |pair: &[Region]| pair[0].address + pair[0].bytes > pair[1].address;
        if regions.windows(2).any(addresses_clash) {
            return Err(RegionError::Overlap);
        }
        Ok(Self(regions))
    }

    /// Regions of hosts that there are not.
    #[cfg(test)]
    pub(crate) fn unchecked(regions: Vec<Region>) -> Self {
        Self(regions)
    }

    /// The regions, by address.
    pub fn iter(&self) -> impl Iterator<Item = Region> {
        self.0.iter().copied()
    }

    /// The page at `address` and the region it is in.
    pub(crate) fn page_at(&self, address: u64) -> Option<(u64, Region)> {
        let after = self.0.partition_point(|region| region.address <= address);
        let region = *self.0.get(after.checked_sub(1)?)?;
        let inside = address - region.address;
        (inside < region.bytes).then(|| ((region.offset + inside) / PAGE_BYTES as u64, region))
    }

    /// The region that maps `page`.
    pub(crate) fn region_of(&self, page: u64) -> Option<Region> {
        self.iter()
            .find(|region| (region.run().first..region.run().end()).contains(&page))
    }

    /// Pages in the addresses `start..end`, as far as they are guest RAM.
    pub(crate) fn runs_in(&self, start: u64, end: u64) -> impl Iterator<Item = Run> {
        self.iter().filter_map(move |region| {
            let from = start.max(region.address);
            let to = end.min(region.address + region.bytes);
            let page =
                |address: u64| (region.offset + (address - region.address)) / PAGE_BYTES as u64;
            (from < to).then(|| Run {
                first: page(from),
                // A part of a page counts as the page; the kernel sends whole ones only.
                count: page(to - 1) + 1 - page(from),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn region(address: u64, bytes: u64, offset: u64) -> Region {
        Region {
            address,
            bytes,
            offset,
            page_bytes: 4096,
        }
    }

    #[test]
    fn addresses_become_pages() {
        // As a large Firecracker guest: the upper part lies below the lower one.
        let regions = Regions::new(
            vec![region(0x7000_0000, MIB, 0), region(0x6000_0000, MIB, MIB)],
            2 * MIB,
        )
        .unwrap();
        let page = |address| regions.page_at(address).map(|(page, _)| page);
        assert_eq!(page(0x7000_0000), Some(0));
        assert_eq!(page(0x7000_1fff), Some(1));
        assert_eq!(page(0x6000_0000), Some(256));
        assert_eq!(page(0x6000_0000 + MIB), None);
        assert_eq!(page(0x5fff_ffff), None);
        assert_eq!(page(u64::MAX), None);
        assert_eq!(
            regions.region_of(256).map(|found| found.address),
            Some(0x6000_0000)
        );
        assert_eq!(regions.region_of(512), None);
        let runs: Vec<Run> = regions
            .runs_in(0x6000_0000 + MIB - 4096, 0x7000_2000)
            .collect();
        let wanted = [
            Run {
                first: 511,
                count: 1,
            },
            Run { first: 0, count: 2 },
        ];
        assert_eq!(runs, wanted);
    }

    #[test]
    fn regions_that_cannot_be_are_refused() {
        let refused: &[&[Region]] = &[
            &[],
            &[region(0, 0, 0)],
            &[region(4096, MIB + 1, 0)],
            &[region(1, MIB, 0)],
            &[region(4096, MIB, 4096)],
            &[region(0, MIB, !4095)],
            &[region(!4095, 8192, 0)],
            &[region(0, MIB / 2, 0), region(MIB, MIB / 2, 4096)],
            &[region(0, MIB / 2, 0), region(4096, MIB / 2, MIB / 2)],
            &[Region {
                page_bytes: 8192,
                ..region(0, MIB, 0)
            }],
            &[Region {
                page_bytes: 0,
                ..region(0, MIB, 0)
            }],
            &[Region {
                page_bytes: 2 * MIB,
                ..region(0, MIB, 0)
            }],
        ];
        for regions in refused {
            assert!(Regions::new(regions.to_vec(), MIB).is_err(), "{regions:?}");
        }
        let many = (0..100)
            .map(|nth| region(nth * 4096, 4096, nth * 4096))
            .collect();
        assert_eq!(
            Regions::new(many, MIB),
            Err(RegionError::Count { count: 100 })
        );
    }
}
