//! What a pager is told when it is started.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How a pager serves. All sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Filled around a fault; a power of two from 4 KiB to 2 MiB.
    pub batch_bytes: u64,
    /// Made zero around a fault on a zero page; a power of two from 4 KiB to 2 MiB.
    pub zero_batch_bytes: u64,
    /// Filled ahead of faults between two looks at the faults; a power of two from 4 KiB to 2 MiB.
    pub ahead_bytes: u64,
    /// Kept of unpacked chunks of a compressed image.
    pub cache_bytes: usize,
}

/// 64 KiB bring a fault within twice the cost of a memory copy, and waste little. Zeros and what is filled ahead
/// are cheaper by the page; 512 KiB take as long as two faults.
impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_bytes: 64 << 10,
            zero_batch_bytes: 512 << 10,
            ahead_bytes: 512 << 10,
            cache_bytes: 16 << 20,
        }
    }
}

impl Settings {
    /// Refuses sizes that make no sense.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn check(self) -> Result<(), String> {
        let sizes = [
            ("batch_bytes", self.batch_bytes),
            ("zero_batch_bytes", self.zero_batch_bytes),
            ("ahead_bytes", self.ahead_bytes),
        ];
        for (name, size) in sizes {
            if !size.is_power_of_two() || !(4 << 10..=2 << 20).contains(&size) {
                return Err(format!(
                    "{name} is {size}, not a power of two from 4 KiB to 2 MiB"
                ));
            }
        }
        Ok(())
    }
}

/// The argument of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// Directory of the memory image.
    pub(crate) image_dir: PathBuf,
    /// How to serve it.
    pub(crate) settings: Settings,
    /// User and group to become.
    pub(crate) uid: Option<u32>,
    /// User whose connections are taken.
    pub(crate) owner_uid: u32,
}
