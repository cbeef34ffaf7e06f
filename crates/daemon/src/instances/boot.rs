//! Booting, and a guest's way up beside the actor.

use std::sync::Arc;
use std::time::Duration;

use guest::{GuestEvent, GuestPhase, StartSpec};
use hypervisor::{Driver, ExitReason, KernelFiles, LaunchPlan, MachineSpec, Vm, VmStatus};
use model::{ExitInfo, GuestFact, Intent, VmmFact};
use tracing::{info, warn};

use super::actor::{Actor, Up};
use super::command::StartOverrides;
use super::context::{BOOT_DEADLINE, RESUME_DEADLINE};
use super::identity;
use super::reaching::reach;
use super::{OpError, chain, disk};
use crate::store::{ImageRecord, StoreError};

/// Between two attempts to reach the agent of a guest that is up: a line that breaks at
/// once must not keep a processor busy.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

impl Actor {
    /// Boots a stopped machine. Returns when the VMM runs; the guest comes up beside.
    pub(super) async fn start(&mut self, overrides: StartOverrides) -> Result<(), OpError> {
        self.save(move |record| {
            if let Some(entrypoint) = overrides.entrypoint {
                record.spec.entrypoint = Some(entrypoint);
            }
            if let Some(cmd) = overrides.cmd {
                record.spec.cmd = Some(cmd);
            }
            record.exit = None;
            record.intent = Some(Intent::Boot);
            Ok(())
        })
        .await?;
        self.boot_or_undo().await
    }

    /// Boots; on failure nothing of the VMM is left and the machine is stopped.
    pub(super) async fn boot_or_undo(&mut self) -> Result<(), OpError> {
        let Err(error) = self.boot().await else {
            return Ok(());
        };
        self.end_vm_or_warn().await;
        let message = chain(&error);
        let now = (self.ctx.now)();
        self.save(move |record| {
            record.intent = None;
            if record.started_at.is_some() {
                record.stopped_at.get_or_insert(now);
            }
            record.exit = Some(ExitInfo {
                code: None,
                message: Some(format!("could not be booted: {message}")),
            });
            Ok(())
        })
        .await?;
        Err(error)
    }

    async fn boot(&mut self) -> Result<(), OpError> {
        let driver = Arc::clone(self.driver()?);
        let image = self.image_record().await?;
        let mut plan = self.launch_plan()?;
        plan.nic = self.take_slot().await?;
        let vm = driver.launch(plan).await?;
        self.vm = Some(vm);
        self.look().await;
        self.show_busy();
        self.record_booted().await?;
        self.bring_up(identity::start_spec(&self.record, &image, &self.ctx.zone));
        Ok(())
    }

    /// The VMM of a machine that boots is up.
    pub(super) async fn record_booted(&mut self) -> Result<(), OpError> {
        let now = (self.ctx.now)();
        self.save(move |record| {
            record.memory = model::MemoryOrigin::booted();
            record.started_at = Some(now);
            record.stopped_at = None;
            record.base = None;
            Ok(())
        })
        .await
    }

    fn launch_plan(&self) -> Result<LaunchPlan, OpError> {
        let boot = self.ctx.boot.as_ref().ok_or_else(|| {
            OpError::HostNotReady("no guest kernel is installed; run: coppice setup".to_owned())
        })?;
        let format = self.driver()?.powers().kernel;
        let kernel = boot.kernel(format).ok_or_else(|| {
            OpError::HostNotReady(format!(
                "no guest kernel that {} can boot is installed; run: coppice setup",
                self.record.spec.hypervisor
            ))
        })?;
        Ok(LaunchPlan {
            name: self.id.to_string(),
            run_dir: self.dir.run(),
            machine: self.machine(),
            kernel: KernelFiles {
                kernel: kernel.to_owned(),
                initrd: boot.initrd.clone(),
                cmdline_extra: String::new(),
            },
            root: self.ctx.root_disk(&self.record.spec)?,
            disk: disk::chain(&self.dir)?,
            logs: self.dir.log_files(),
            nic: None,
        })
    }

    /// The driver of the VMM that the instance runs on.
    pub(super) fn driver(&self) -> Result<&Arc<dyn Driver>, OpError> {
        self.ctx.drivers.named(&self.record.spec.hypervisor)
    }

    pub(super) fn machine(&self) -> MachineSpec {
        MachineSpec {
            vcpus: self.record.spec.vcpus,
            ram_bytes: self.record.spec.size.bytes(),
        }
    }

    pub(super) async fn image_record(&self) -> Result<ImageRecord, OpError> {
        let digest = self.record.spec.image_digest.clone();
        let name = self.record.spec.image.clone();
        self.ctx
            .store
            .run(move |store| store.image(&digest))
            .await
            .map_err(|error| match error {
                StoreError::NotFound => OpError::NoImage(name),
                other => other.into(),
            })
    }

    /// Starts the task that waits for the agent and lets it start the program if that
    /// has not happened yet. Running it again is harmless: a started guest says so.
    pub(super) fn bring_up(&mut self, spec: StartSpec) {
        self.bring_up_after(Duration::ZERO, spec);
    }

    fn bring_up_after(&mut self, pause: Duration, spec: StartSpec) {
        let Some(vm) = self.vm.clone() else {
            return;
        };
        self.bring_up = Some(tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            come_up(vm, spec).await
        }));
    }

    /// The guest has answered, or will not.
    pub(super) async fn guest_up(&mut self, result: Result<Up, OpError>) {
        match result {
            Ok(up) => {
                self.take_guest(up);
                info!(instance = %self.id, "guest is ready");
                self.journal.note("guest is ready");
                self.clear_intent().await;
            }
            // It ran before: the line was lost, not the guest. Look again for ever; each
            // attempt has its own deadline.
            Err(error) if self.guest == GuestFact::Ready => {
                warn!(instance = %self.id, why = %chain(&error), "the agent does not answer");
                self.reconnect_after(RECONNECT_PAUSE).await;
            }
            Err(error) => self.boot_failed(&error).await,
        }
        self.show();
    }

    async fn boot_failed(&mut self, error: &OpError) {
        let why = chain(error);
        warn!(instance = %self.id, %why, "guest did not come up");
        self.journal.note(&format!("guest did not come up: {why}"));
        self.end_vm_or_warn().await;
        self.record_down(Some(ExitInfo {
            code: None,
            message: Some(format!("guest did not come up: {why}")),
        }))
        .await;
    }

    /// Connects to the agent of a guest that is up already.
    pub(super) async fn reconnect(&mut self) {
        self.reconnect_after(Duration::ZERO).await;
    }

    async fn reconnect_after(&mut self, pause: Duration) {
        self.link = None;
        self.events = None;
        match self.image_record().await {
            Ok(image) => {
                let spec = identity::start_spec(&self.record, &image, &self.ctx.zone);
                self.bring_up_after(pause, spec);
            }
            // Counts as an attempt that failed, so that there is a next one.
            Err(error) => {
                self.bring_up = Some(tokio::spawn(async {
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    Err(error)
                }));
            }
        }
    }

    /// The agent says something unasked.
    pub(super) async fn guest_event(&mut self, event: GuestEvent) {
        match event {
            GuestEvent::Closed => {
                self.look().await;
                if self.vmm == VmmFact::Running {
                    self.reconnect().await;
                } else {
                    self.link = None;
                    self.events = None;
                }
            }
            GuestEvent::ProgramExited {
                code,
                signal: _,
                message,
            } => {
                self.journal.note(&format!("program exited with {code}"));
                // The guest powers off only when it is told that the exit is recorded: the
                // code is never lost.
                if self.record_exit(code, message).await
                    && let Some(link) = self.link.clone()
                    && let Err(error) = link.acknowledge_exit().await
                {
                    warn!(instance = %self.id, why = %chain(&error), "cannot acknowledge");
                }
            }
        }
        self.show();
    }

    /// Records how the program ended; false if that could not be done.
    pub(super) async fn record_exit(&mut self, code: i32, message: Option<String>) -> bool {
        let exit = ExitInfo {
            code: Some(code),
            message,
        };
        let saved = self
            .save(move |record| {
                record.exit = Some(exit);
                Ok(())
            })
            .await;
        if let Err(error) = &saved {
            warn!(instance = %self.id, why = %chain(error), "cannot record the exit");
        }
        saved.is_ok()
    }

    /// The guest has powered off; its VMM has nothing more to do.
    pub(super) async fn powered_off(&mut self) {
        self.vmm = VmmFact::Shutdown;
        self.show();
        self.end_vm_or_warn().await;
        self.record_down(None).await;
        self.show();
    }

    /// The VMM is gone without having been told to go.
    pub(super) async fn vmm_exited(&mut self, reason: &ExitReason) {
        // Firecracker ends with its guest, which powers off when the end of its program is recorded.
        if self.record.exit.is_some() && *reason == ExitReason::Code(0) {
            info!(instance = %self.id, "the guest has powered off");
            self.journal.note("the guest has powered off");
        } else {
            warn!(instance = %self.id, %reason, "the VMM ended by itself");
            self.journal
                .note(&format!("the VMM ended by itself: {reason}"));
        }
        let unserved = match self.paged.clone() {
            Some(paged) => paged.last_words().await,
            None => None,
        };
        self.forget_vm();
        self.release_slot().await;
        if self.record.standby.is_some() {
            // Its memory was safe already; only its end was missing.
            self.clear_intent().await;
            self.show();
            return;
        }
        let unexplained = self.record.exit.is_none().then(|| ExitInfo {
            code: None,
            message: Some(match unserved {
                Some(reason) => OpError::Unserved(reason).to_string(),
                None => "the VMM ended unexpectedly; see the vmm log".to_owned(),
            }),
        });
        self.record_down(unexplained).await;
        self.show();
    }

    pub(super) async fn clear_intent(&mut self) {
        let cleared = self
            .save(|record| {
                record.intent = None;
                Ok(())
            })
            .await;
        if let Err(error) = cleared {
            warn!(instance = %self.id, why = %chain(&error), "cannot record the end of an operation");
        }
    }
}

/// Waits for the agent, and lets it start the program unless it has done so.
async fn come_up(vm: Arc<dyn Vm>, mut spec: StartSpec) -> Result<Up, OpError> {
    let (link, events) = reach(vm.as_ref(), BOOT_DEADLINE).await?;
    match link.phase() {
        GuestPhase::Waiting => {
            if vm.status().await? == VmStatus::Shutdown {
                return Err(guest::LinkError::Closed.into());
            }
            // The clock has gone on while the guest booted.
            spec.wall_clock_ns = identity::wall_clock_ns();
            link.start(spec, BOOT_DEADLINE).await?;
        }
        // Frozen by a standby that a crash of the daemon cut short. Whether the guest has
        // run on or woke from an image since is not asked: an identity is right for both.
        GuestPhase::Started { .. } | GuestPhase::Exited(_) if link.frozen() => {
            link.resume(identity::again(spec), RESUME_DEADLINE).await?;
        }
        GuestPhase::Started { .. } | GuestPhase::Exited(_) => {}
    }
    Ok(Up { link, events })
}
