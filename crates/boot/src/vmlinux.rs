//! The uncompressed kernel: the ELF file that lies compressed in a bzImage.
//!
//! Firecracker boots nothing else. Kernel packages carry the bzImage only, whose header says where its
//! compressed payload is; what packed it is seen from the payload's first bytes. The payload is the ELF
//! file, followed by relocations that only the bzImage's own loader uses.
//!
//! The file may come from anybody: sizes are bounded before memory is taken, and whatever does not
//! fit together is refused.

use std::io::Read;

use crate::elf;

/// Largest kernel that is unpacked. Debian's has 53 MB; one with all debug data would have more than
/// any VMM loads.
const MAX_BYTES: u64 = 512 << 20;

/// Most that a dictionary of LZMA may take, in KiB. Kernels are packed with 32 MiB.
const MAX_DICTIONARY_KIB: u32 = 256 << 10;

/// Places in the setup header, by the kernel's description of the x86 boot protocol.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// First version of the boot protocol that tells where the payload is.
const VERSION_WITH_PAYLOAD: u16 = 0x0208;

/// Bytes in a sector of the setup code, and sectors of setup code where the header says none.
const SECTOR: usize = 512;
const DEFAULT_SECTORS: usize = 4;

/// Behind the payload, the size of what is in it.
const SIZE_BYTES: usize = 4;

/// Why a kernel image has no uncompressed kernel that could be booted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VmlinuxError {
    /// Neither a bzImage nor an ELF file.
    #[error("the kernel is neither a bzImage nor an ELF file")]
    NoKernel,
    /// The header leads outside the file.
    #[error("the kernel image is truncated")]
    Truncated,
    /// What the payload begins with belongs to no packing that is known here.
    #[error("the kernel is packed in an unknown way, beginning with {0:02x?}")]
    UnknownPacking(Vec<u8>),
    /// It could be unpacked, but not here.
    #[error(
        "the kernel is packed by {0}, which is not supported; lz4, zstd, xz, lzma and gzip are"
    )]
    UnsupportedPacking(&'static str),
    /// It says of itself that it is larger than any kernel.
    #[error("the unpacked kernel would have {0} bytes, more than the {MAX_BYTES} that are taken")]
    TooLarge(u64),
    /// It does not have the size that it says.
    #[error("the unpacked kernel does not have the {expected} bytes that its image tells")]
    WrongSize {
        /// What the image tells.
        expected: u64,
    },
    /// The packed bytes are damaged.
    #[error("the kernel cannot be unpacked ({packing}): {source}")]
    Damaged {
        /// How it is packed.
        packing: &'static str,
        /// What the unpacker says.
        source: std::io::Error,
    },
    /// What was unpacked cannot be booted.
    #[error("the unpacked kernel cannot be booted: {0}")]
    NotBootable(#[from] elf::Unbootable),
}

/// How a payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Packing {
    Gzip,
    Xz,
    Lzma,
    Lz4,
    Zstd,
}

/// First bytes of all ways in which Linux packs its kernel (`lib/decompress.c` of its sources).
const PACKINGS: [(&[u8], Result<Packing, &str>); 8] = [
    (&[0x1f, 0x8b], Ok(Packing::Gzip)),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], Ok(Packing::Xz)),
    (&[0x5d, 0, 0], Ok(Packing::Lzma)),
    (&[0x02, 0x21, 0x4c, 0x18], Ok(Packing::Lz4)),
    (&[0x28, 0xb5, 0x2f, 0xfd], Ok(Packing::Zstd)),
    (b"BZh", Err("bzip2")),
    (&[0x89, b'L', b'Z', b'O'], Err("lzo")),
    (&[0x1f, 0x9e], Err("gzip of an old kind")),
];

impl Packing {
    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lzma => "lzma",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    fn find(payload: &[u8]) -> Result<Self, VmlinuxError> {
        let found = PACKINGS
            .iter()
            .find(|(magic, _)| payload.starts_with(magic));
        match found {
            Some((_, Ok(packing))) => Ok(*packing),
            Some((_, Err(name))) => Err(VmlinuxError::UnsupportedPacking(name)),
            None => Err(VmlinuxError::UnknownPacking(
                payload[..payload.len().min(6)].to_vec(),
            )),
        }
    }

    /// Unpacks up to `limit` bytes.
    fn unpack(self, packed: &[u8], limit: u64) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Gzip => flate2::read::GzDecoder::new(packed)
                .take(limit)
                .read_to_end(&mut out),
            Self::Xz => lzma_rust2::XzReader::new_mem_limit(packed, false, MAX_DICTIONARY_KIB)
                .take(limit)
                .read_to_end(&mut out),
            Self::Lzma => lzma_rust2::LzmaReader::new_mem_limit(packed, MAX_DICTIONARY_KIB, None)?
                .take(limit)
                .read_to_end(&mut out),
            Self::Lz4 => lz4_flex::frame::FrameDecoder::new(packed)
                .take(limit)
                .read_to_end(&mut out),
            Self::Zstd => zstd::Decoder::new(packed)?
                .single_frame()
                .take(limit)
                .read_to_end(&mut out),
        }?;
        Ok(out)
    }
}

/// The ELF file in a kernel image, or the image itself if it is one. What is returned can be booted.
pub(crate) fn extract(image: &[u8]) -> Result<Vec<u8>, VmlinuxError> {
    let kernel = match image.starts_with(elf::MAGIC) {
        true => image.to_vec(),
        false => unpack(payload(image)?)?,
    };
    elf::check(&kernel)?;
    Ok(kernel)
}

/// The packed bytes of a bzImage, with the size behind them.
fn payload(image: &[u8]) -> Result<&[u8], VmlinuxError> {
    let is_kernel = image.get(MAGIC..MAGIC + 4) == Some(b"HdrS")
        && image.get(BOOT_FLAG..BOOT_FLAG + 2) == Some(&[0x55, 0xaa]);
    if !is_kernel {
        return Err(VmlinuxError::NoKernel);
    }
    let version = number(image, VERSION)? as u16;
    if version < VERSION_WITH_PAYLOAD {
        return Err(VmlinuxError::NoKernel);
    }
    let sectors = match image[SETUP_SECTS] {
        0 => DEFAULT_SECTORS,
        sectors => usize::from(sectors),
    };
    let [offset, length] = [PAYLOAD_OFFSET, PAYLOAD_LENGTH].map(|at| number(image, at));
    // One sector is the boot sector. Sums of 32 bits fit.
    let start = (sectors + 1) * SECTOR + offset? as usize;
    image
        .get(start..start + length? as usize)
        .ok_or(VmlinuxError::Truncated)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, VmlinuxError> {
    let packing = Packing::find(payload)?;
    let end = payload
        .len()
        .checked_sub(SIZE_BYTES)
        .ok_or(VmlinuxError::Truncated)?;
    let expected = u64::from(number(payload, end)?);
    if expected > MAX_BYTES {
        return Err(VmlinuxError::TooLarge(expected));
    }
    let packed = match packing {
        // The size is the end of the format itself.
        Packing::Gzip => payload,
        _ => &payload[..end],
    };
    let kernel = packing
        .unpack(packed, expected + 1)
        .map_err(|source| VmlinuxError::Damaged {
            packing: packing.name(),
            source,
        })?;
    match kernel.len() as u64 == expected {
        true => Ok(kernel),
        false => Err(VmlinuxError::WrongSize { expected }),
    }
}

/// Four bytes, the lowest first.
fn number(bytes: &[u8], at: usize) -> Result<u32, VmlinuxError> {
    let four = bytes.get(at..).and_then(<[u8]>::first_chunk);
    four.copied()
        .map(u32::from_le_bytes)
        .ok_or(VmlinuxError::Truncated)
}

#[cfg(test)]
mod tests;
