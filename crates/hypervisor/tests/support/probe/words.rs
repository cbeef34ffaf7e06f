//! Words under names, in RAM and on the disk: an entry of 512 bytes each, from the first free one on.

use crate::block::{Disk, SECTOR};
use crate::{map, sys};

/// Entries in either place.
const ENTRIES: u64 = 64;

/// First sector on the disk.
const FIRST_SECTOR: u64 = 1024;

/// Bytes of a name; the word follows.
const NAME: usize = 64;

/// Where words are kept.
pub enum Shelf<'a> {
    Ram,
    Disk(&'a mut Disk),
}

impl Shelf<'_> {
    /// Keeps `word` under `name`; false if there is no room.
    pub fn put(&mut self, name: &[u8], word: &[u8]) -> bool {
        let mut entry = [0; SECTOR];
        if name.len() >= NAME || word.len() >= SECTOR - NAME {
            return false;
        }
        entry[..name.len()].copy_from_slice(name);
        entry[NAME..NAME + word.len()].copy_from_slice(word);
        for number in 0..ENTRIES {
            let Some(old) = self.read(number) else {
                return false;
            };
            if old[0] == 0 || trimmed(&old[..NAME]) == name {
                return self.write(number, &entry);
            }
        }
        false
    }

    /// Gives the word under `name` to `found`, if there is one.
    pub fn get(&mut self, name: &[u8], found: impl FnOnce(&[u8])) {
        for number in 0..ENTRIES {
            let Some(entry) = self.read(number) else {
                return;
            };
            if trimmed(&entry[..NAME]) == name {
                return found(trimmed(&entry[NAME..]));
            }
            if entry[0] == 0 {
                return;
            }
        }
    }

    fn read(&mut self, number: u64) -> Option<[u8; SECTOR]> {
        match self {
            Self::Disk(disk) => disk.read(FIRST_SECTOR + number),
            Self::Ram => {
                let mut entry = [0; SECTOR];
                for (byte, address) in entry.iter_mut().zip(address(number)..) {
                    *byte = sys::read8(address);
                }
                Some(entry)
            }
        }
    }

    fn write(&mut self, number: u64, entry: &[u8; SECTOR]) -> bool {
        match self {
            Self::Disk(disk) => disk.write(FIRST_SECTOR + number, entry),
            Self::Ram => {
                for (byte, address) in entry.iter().zip(address(number)..) {
                    sys::write8(address, *byte);
                }
                true
            }
        }
    }
}

fn address(number: u64) -> u64 {
    map::WORDS + number * SECTOR as u64
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|byte| *byte == 0);
    &bytes[..end.unwrap_or(bytes.len())]
}
