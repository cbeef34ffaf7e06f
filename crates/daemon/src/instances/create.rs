//! New instances.

use std::sync::Arc;

use model::{
    InstanceId, InstanceRecord, InstanceSpec, Intent, MemoryOrigin, Name, PhaseClock, State,
    UnixMillis,
};

use super::actor::Actor;
use super::command::Command;
use super::registry::{Instances, send};
use super::{OpError, disk};
use crate::entropy;

impl Instances {
    /// Makes an instance and boots it. Answers when its VMM runs; a create that fails
    /// leaves nothing behind, its name included.
    pub async fn create(
        self: &Arc<Self>,
        name: Name,
        spec: InstanceSpec,
        expires_at: Option<UnixMillis>,
    ) -> Result<InstanceId, OpError> {
        let now = (self.ctx.now)();
        let record = InstanceRecord {
            id: entropy::instance_id(),
            name,
            spec,
            parent: None,
            template: false,
            promoting: false,
            standby: None,
            base: None,
            memory: MemoryOrigin::booted(),
            lease: None,
            intent: Some(Intent::Boot),
            exit: None,
            created_at: now,
            started_at: None,
            stopped_at: None,
            expires_at,
            phases: PhaseClock::new(State::Stopped, now),
        };
        let id = record.id.clone();
        let all = Arc::clone(self);
        // In a task of its own: a client that hangs up must not leave half an instance.
        let made = tokio::spawn(async move {
            let row = record.clone();
            all.ctx.store.run(move |store| store.insert(&row)).await?;
            let handle = all.spawn(record);
            send(&handle, Command::Create).await
        });
        match made.await {
            Ok(result) => result.map(|_| id),
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }
}

impl Actor {
    /// The first boot, disk included.
    pub(super) async fn create(&mut self) -> Result<(), OpError> {
        let Err(error) = self.first_boot().await else {
            return Ok(());
        };
        self.unmake_self().await;
        Err(error)
    }

    async fn first_boot(&mut self) -> Result<(), OpError> {
        self.make_directories()?;
        let layout = self.ctx.layout.clone();
        let dir = self.dir.clone();
        let size = self.record.spec.overlay_size.bytes();
        let format = self.driver()?.powers().disk;
        super::blocking::blocking_op(move || {
            disk::fresh(&layout, &dir, size, format)?;
            disk::make_durable(&dir)
        })
        .await?;
        self.boot_or_undo().await
    }
}
