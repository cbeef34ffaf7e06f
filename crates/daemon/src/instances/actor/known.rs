//! What an actor knows, and the state that follows from it.

use memory::Image;
use model::{
    Facts, GuestFact, ImageFact, InstanceRecord, NetworkLease, PhaseClock, UnixMillis, VmmFact,
    derive,
};

use super::super::chain;
use super::super::layout::InstanceDir;
use crate::store::StoreError;

/// What the actor knows better than the record that it writes: how long the instance has been in which
/// state, and its slot.
pub(super) struct Known {
    pub(super) phases: PhaseClock,
    pub(super) lease: Option<NetworkLease>,
    pub(super) vmm: VmmFact,
    pub(super) guest: GuestFact,
    pub(super) dir: InstanceDir,
    pub(super) now: UnixMillis,
}

impl Known {
    pub(super) fn around(
        self,
        record: &mut InstanceRecord,
        change: impl FnOnce(&mut InstanceRecord) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        record.phases = self.phases;
        record.lease = self.lease;
        change(record)?;
        let (state, _) = derive(&facts(record, self.vmm, self.guest, &self.dir));
        record.phases.enter(state, self.now);
        Ok(())
    }
}

/// The facts of an instance.
pub(super) fn facts(
    record: &InstanceRecord,
    vmm: VmmFact,
    guest: GuestFact,
    dir: &InstanceDir,
) -> Facts {
    let image = match &record.standby {
        None => ImageFact::None,
        Some(id) => match Image::open(&dir.image(id)) {
            Ok(_) => ImageFact::Complete,
            Err(error) => ImageFact::Missing(chain(&error)),
        },
    };
    Facts {
        vmm,
        guest,
        image,
        template: record.template,
    }
}
