//! The network card of a machine.

use std::path::PathBuf;

use memory::NicFacts;

use crate::VmmError;

/// A network card on a TAP device. A machine without one has no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Bind mount of the network namespace in which the VMM runs.
    pub netns: PathBuf,
    /// Name of a TAP device in that namespace: persistent, with one queue, and in use by nobody else. Its frames
    /// carry a virtio-net header.
    pub tap: String,
    /// Address of the card. A restored machine keeps the one it was saved with.
    pub mac: [u8; 6],
}

impl Nic {
    /// The address as text, `52:54:00:00:00:01`.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }

    pub(crate) fn facts(&self) -> NicFacts {
        NicFacts {
            mac: self.mac_text(),
        }
    }
}

/// Refuses a restore onto another card than the machine was saved with: VMMs would fail in their own words, or leave
/// the guest with an address that nobody else knows.
pub(crate) fn check_fits(saved: Option<&NicFacts>, planned: Option<&Nic>) -> Result<(), VmmError> {
    let planned = planned.map(Nic::facts);
    if saved == planned.as_ref() {
        return Ok(());
    }
    let text =
        |nic: Option<&NicFacts>| nic.map_or_else(|| "none".to_owned(), |nic| nic.mac.clone());
    Err(VmmError::Mismatch {
        field: "nic",
        wanted: text(saved),
        found: text(planned.as_ref()),
    })
}
