//! Whether an uncompressed kernel is one that a VMM can boot.
//!
//! VMMs copy the loadable segments to their physical addresses and jump: to the address in a note
//! "Xen" if there is one (the PVH way: 32 bits, no page tables), else to the entry address (the 64-bit
//! way of Linux). Firecracker takes both, QEMU the first alone.

use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};

/// First bytes of every ELF file.
pub(crate) const MAGIC: &[u8] = b"\x7fELF";

/// Below it VMMs keep page tables, the command line and the tables of the firmware.
const LOWEST_ADDRESS: u64 = 1 << 20;

/// A kernel ends below it. Far more than one needs, far less than would wrap around.
const HIGHEST_ADDRESS: u64 = 1 << 30;

/// `XEN_ELFNOTE_PHYS32_ENTRY` of Xen's elfnote.h, in notes of the name "Xen".
const PVH_ENTRY: elf::NoteType = elf::NoteType(18);

/// Why a kernel cannot be booted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbootable {
    /// Not ELF, not of 64 bits, or cut off.
    #[error("it is no ELF file of 64 bits, or a damaged one")]
    Damaged,
    /// A program, a library, or a kernel of another processor.
    #[error("it is no executable for x86-64")]
    OtherKind,
    /// Nothing would be in memory, or not all of it.
    #[error("its segments do not lie between 1 MiB and 1 GiB of memory, or not in the file")]
    Segments,
    /// The processor would begin where nothing is.
    #[error("its {0} entry lies in none of its segments")]
    Entry(&'static str),
}

/// Where a kernel begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entries {
    /// The 64-bit entry.
    pub linux: u64,
    /// The PVH entry, which kernels have that were built with `CONFIG_PVH`.
    pub pvh: Option<u64>,
}

/// Checks everything that a VMM relies on.
pub(crate) fn check(kernel: &[u8]) -> Result<Entries, Unbootable> {
    let damaged = |_| Unbootable::Damaged;
    let header = elf::FileHeader64::<LittleEndian>::parse(kernel).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != elf::EM_X86_64 || header.e_type(endian) != elf::ET_EXEC {
        return Err(Unbootable::OtherKind);
    }
    let headers = header.program_headers(endian, kernel).map_err(damaged)?;
    let mut loaded = Vec::new();
    let mut pvh = None;
    for segment in headers {
        match segment.p_type(endian) {
            elf::PT_LOAD => {
                segment
                    .data(endian, kernel)
                    .map_err(|()| Unbootable::Segments)?;
                loaded.push(place(segment)?);
            }
            elf::PT_NOTE => pvh = pvh.or(pvh_entry(segment, kernel)),
            _ => {}
        }
    }
    let is_loaded = |address: u64| loaded.iter().any(|range| range.contains(&address));
    let linux = header.e_entry(endian);
    match pvh {
        _ if loaded.is_empty() => Err(Unbootable::Segments),
        _ if !is_loaded(linux) => Err(Unbootable::Entry("64-bit")),
        Some(entry) if !is_loaded(entry) => Err(Unbootable::Entry("PVH")),
        pvh => Ok(Entries { linux, pvh }),
    }
}

/// Physical addresses of a loaded segment.
fn place(segment: &elf::ProgramHeader64<LittleEndian>) -> Result<std::ops::Range<u64>, Unbootable> {
    let endian = LittleEndian;
    let start = segment.p_paddr(endian);
    let end = start.checked_add(segment.p_memsz(endian));
    match end {
        Some(end)
            if start >= LOWEST_ADDRESS
                && end <= HIGHEST_ADDRESS
                && segment.p_filesz(endian) <= segment.p_memsz(endian) =>
        {
            Ok(start..end)
        }
        _ => Err(Unbootable::Segments),
    }
}

/// The PVH entry if the notes of this segment tell one. Notes that cannot be read tell none.
fn pvh_entry(segment: &elf::ProgramHeader64<LittleEndian>, kernel: &[u8]) -> Option<u64> {
    let endian = LittleEndian;
    let mut notes = segment.notes(endian, kernel).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(endian) == PVH_ENTRY {
            // The kernel writes 8 bytes; 4 are what the note is defined to have.
            let low = note.desc().first_chunk::<4>()?;
            return Some(u32::from_le_bytes(*low).into());
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Where the sample is loaded, and how much of it.
    const BASE: u64 = 16 << 20;
    const LENGTH: u64 = 0x1000;
    /// Bytes of its header and two program headers; segments begin behind them.
    const HEADERS: usize = 64 + 2 * 56;

    /// Places of fields in it.
    const MACHINE: usize = 18;
    const ENTRY: usize = 24;
    const LOAD: usize = 64;
    const PHYSICAL: usize = 24;
    const FILE_SIZE: usize = 32;

    fn program_header(kind: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
        let mut bytes = [kind, 7].map(u32::to_le_bytes).concat();
        for field in [offset, address, address, size, size, 4] {
            bytes.extend(field.to_le_bytes());
        }
        bytes
    }

    /// A kernel of one page that VMMs would load, with a PVH note.
    pub(crate) fn kernel() -> Vec<u8> {
        let mut note = [4, 8, PVH_ENTRY.0].map(u32::to_le_bytes).concat();
        note.extend(b"Xen\0");
        note.extend((BASE + 0x10).to_le_bytes());
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend([2u16, 62].map(u16::to_le_bytes).concat());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend([BASE, 64, 0].map(u64::to_le_bytes).concat());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend([64u16, 56, 2, 64, 0, 0].map(u16::to_le_bytes).concat());
        bytes.extend(program_header(1, HEADERS as u64, BASE, LENGTH));
        let end = HEADERS as u64 + LENGTH;
        bytes.extend(program_header(4, end, 0, note.len() as u64));
        assert_eq!(bytes.len(), HEADERS);
        bytes.extend((0..LENGTH).map(|at| (at * 7 / 3) as u8));
        bytes.extend(note);
        bytes
    }

    /// The sample with 8 bytes replaced.
    fn with(at: usize, value: u64) -> Vec<u8> {
        let mut bytes = kernel();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    #[test]
    fn both_entries_of_a_kernel_are_found() {
        let pvh = Some(BASE + 0x10);
        assert_eq!(check(&kernel()), Ok(Entries { linux: BASE, pvh }));
        // What follows a kernel in its bzImage does no harm.
        let followed = [kernel(), vec![1; 100]].concat();
        assert_eq!(check(&followed), Ok(Entries { linux: BASE, pvh }));
    }

    #[test]
    fn a_kernel_without_the_note_has_the_entry_of_linux_alone() {
        let mut bytes = kernel();
        let name = bytes.len() - 12;
        bytes[name] = b'L';
        assert_eq!(check(&bytes).unwrap().pvh, None);
    }

    #[test]
    fn what_no_vmm_could_boot_is_refused() {
        let sample = kernel();
        let load = |field: usize| LOAD + field;
        let mut other_machine = sample.clone();
        other_machine[MACHINE] = 183;
        let mut note_outside = sample.clone();
        let note = sample.len() - 8;
        note_outside[note..note + 4].copy_from_slice(&8u32.to_le_bytes());
        for (what, bytes, wanted) in [
            ("text", b"\x7fELF of a kind".to_vec(), Unbootable::Damaged),
            ("arm", other_machine, Unbootable::OtherKind),
            ("cut", sample[..HEADERS + 9].to_vec(), Unbootable::Segments),
            ("low", with(load(PHYSICAL), 4096), Unbootable::Segments),
            (
                "high",
                with(load(PHYSICAL), u64::MAX - 5),
                Unbootable::Segments,
            ),
            (
                "more in the file",
                with(load(FILE_SIZE), LENGTH + 1),
                Unbootable::Segments,
            ),
            (
                "entry",
                with(ENTRY, BASE + LENGTH),
                Unbootable::Entry("64-bit"),
            ),
            ("pvh entry", note_outside, Unbootable::Entry("PVH")),
        ] {
            assert_eq!(check(&bytes), Err(wanted), "{what}");
        }
    }
}
