//! What a run directory says about its machine, for the daemon that adopts it.

use std::path::{Path, PathBuf};

use memory::MachineFacts;
use serde::{Deserialize, Serialize};

use crate::VmmError;

/// Version of the record. Machines that run under another one are not adopted by guessing.
const VERSION: u32 = 1;

/// Layers an image may have. Each one costs a restore another pass over the pages that several layers hold.
pub(crate) const MAX_LAYERS: usize = 4;

/// Written before the launcher starts, read at adoption.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    version: u32,
    /// The machine, for the manifest of its next image.
    pub(crate) machine: MachineFacts,
    /// The image whose RAM it maps; none if its RAM is its own.
    pub(crate) base: Option<Base>,
    /// Log of the VMM, and its length before this run.
    pub(crate) log: PathBuf,
    pub(crate) log_start: u64,
    /// User of its jail, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) jail_uid: Option<u32>,
    /// Log of the program's output, if the daemon writes it and not the VMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app_log: Option<PathBuf>,
}

/// The image below a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Base {
    pub(crate) image_dir: PathBuf,
    /// Layers that are in the mapped memfd, from the first one on.
    pub(crate) layers: usize,
}

impl Record {
    /// Name in the run directory.
    pub(crate) const FILE: &'static str = "vmm.json";

    pub(crate) fn new(machine: MachineFacts, base: Option<Base>, log: PathBuf) -> Self {
        let log_start = std::fs::metadata(&log).map_or(0, |metadata| metadata.len());
        Self {
            version: VERSION,
            machine,
            base,
            log,
            log_start,
            jail_uid: None,
            app_log: None,
        }
    }

    /// Written whole or not at all. A power failure ends the machine too, so nothing is synced.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<(), VmmError> {
        let path = run_dir.join(Self::FILE);
        let part = run_dir.join(format!("{}.part", Self::FILE));
        let text = serde_json::to_vec(self)
            .map_err(|error| VmmError::io("encode", &path)(error.into()))?;
        std::fs::write(&part, text).map_err(VmmError::io("write", &part))?;
        std::fs::rename(&part, &path).map_err(VmmError::io("rename", &part))
    }

    /// The record of a machine of the VMM called `name`; an error if another one runs it.
    pub(crate) fn read_own(run_dir: &Path, name: &str) -> Result<Self, VmmError> {
        let record = Self::read(run_dir)?;
        if record.machine.vmm.name == name {
            Ok(record)
        } else {
            Err(VmmError::Foreign {
                owner: record.machine.vmm.name,
            })
        }
    }

    pub(crate) fn read(run_dir: &Path) -> Result<Self, VmmError> {
        let path = run_dir.join(Self::FILE);
        let bytes = std::fs::read(&path).map_err(VmmError::io("read", &path))?;
        let record: Self = serde_json::from_slice(&bytes)
            .map_err(|error| VmmError::io("decode", &path)(error.into()))?;
        if record.version == VERSION {
            Ok(record)
        } else {
            Err(VmmError::unusable(format!(
                "{} has version {}, not {VERSION}",
                path.display(),
                record.version
            )))
        }
    }
}
