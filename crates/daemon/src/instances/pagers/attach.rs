//! Handing a machine over: the VMM loads it while the pager already serves the faults of that.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hypervisor::{Vm, VmmError};
use memory::PAGE_BYTES;
use model::{ImageId, InstanceId};
use pager::{Attach, PagerError};
use rustix::fs::{Mode, OFlags};
use tracing::warn;

use super::book::Standing;
use super::hot::{HotSink, HotWork};
use super::site::{Site, run};
use super::{HotOrder, Paged, Pagers};
use crate::instances::{OpError, chain};

/// From the start of the VMM to its hand-over. It takes 10 ms alone, seconds when many start on few cores; a VMM
/// that fails ends the wait at once.
const HAND_OVER: Duration = Duration::from_secs(60);

/// A machine that is to get its memory from a pager.
pub(in crate::instances) struct Paging {
    pub(in crate::instances) vm: InstanceId,
    pub(in crate::instances) image: ImageId,
    /// The image's files, of which the pager gets links of its own.
    pub(in crate::instances) image_dir: PathBuf,
    /// Where the VMM hands over, for as long as that takes.
    pub(in crate::instances) socket: PathBuf,
    pub(in crate::instances) hot: Option<HotOrder>,
}

impl Pagers {
    /// Has the machine that `start` starts served by a pager of its image. On an error nothing is left of either.
    pub(in crate::instances) async fn attach(
        self: &Arc<Self>,
        paging: Paging,
        start: impl Future<Output = Result<Arc<dyn Vm>, OpError>>,
    ) -> Result<(Arc<dyn Vm>, Arc<Paged>), OpError> {
        let site = self.site(&paging.image);
        // From here on the pagers of the image are needed; what fails is released with this.
        site.book().open(paging.vm.clone(), Standing::Coming, true);
        let mut paged = Paged::new(Arc::clone(&site), paging.vm.clone());
        let socket = paging.socket.clone();
        let outcome = match site.open(self, Some(&paging.image_dir)).await {
            Ok(()) => hand_over(&site, paging, &mut paged, start).await,
            Err(error) => Err(error),
        };
        // The VMM has its connection, or never will.
        let _ = std::fs::remove_file(socket);
        match outcome {
            Ok((vm, recorded)) => {
                if let Some(into) = recorded {
                    paged.record(into, self.policy.record_for);
                }
                Ok((vm, Arc::new(paged)))
            }
            Err(error) => {
                site.book().end(&paged.vm, Standing::Gone, None);
                Err(error)
            }
        }
    }
}

/// Gives the machine, and where its recording goes if it is recorded.
async fn hand_over(
    site: &Arc<Site>,
    paging: Paging,
    paged: &mut Paged,
    start: impl Future<Output = Result<Arc<dyn Vm>, OpError>>,
) -> Result<(Arc<dyn Vm>, Option<HotSink>), OpError> {
    let Paging {
        vm, socket, hot, ..
    } = paging;
    let prepared = run(move || {
        let work = hot.map(HotOrder::plan);
        let listener = bind(&socket).map_err(OpError::disk("cannot make the socket of a pager"))?;
        Ok((Arc::new(listener), work.unwrap_or_default()))
    });
    let (listener, work) = prepared.await?;
    let HotWork {
        record: recorded,
        replay: hot_pages,
    } = work;
    let record = recorded.is_some();
    paged.hot_bytes = hot_pages
        .as_ref()
        .map_or(0, |hot| hot.page_count() * PAGE_BYTES as u64);
    let (name, ear) = (vm.to_string(), Arc::clone(&listener));
    let asking = Arc::clone(site);
    let mut attached = tokio::spawn(async move {
        let attach = move |pager: &dyn super::ImagePager| {
            pager.attach(Attach {
                vm: name,
                listener: &ear,
                expected_pid: None,
                limit: HAND_OVER,
                hot_pages,
                record,
            })
        };
        asking.ask(attach).await
    });
    let mut start = std::pin::pin!(start);
    let (started, attached) = tokio::select! {
        started = &mut start => {
            if started.is_err() {
                // Nobody will come any more.
                let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
            }
            (started, joined(attached.await))
        }
        attached = &mut attached => (start.await, joined(attached)),
    };
    let machine = settle(site, &vm, started, attached).await?;
    Ok((machine, recorded))
}

fn joined(attached: Result<Result<(), OpError>, tokio::task::JoinError>) -> Result<(), OpError> {
    match attached {
        Ok(attached) => attached,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// One without the other is none. Of two errors the cause is told.
async fn settle(
    site: &Site,
    vm: &InstanceId,
    started: Result<Arc<dyn Vm>, OpError>,
    attached: Result<(), OpError>,
) -> Result<Arc<dyn Vm>, OpError> {
    match (started, attached) {
        (Ok(machine), Ok(())) => {
            if let Some(seat) = site.book().seat_mut(vm)
                && seat.standing == Standing::Coming
            {
                seat.standing = Standing::Served;
            }
            site.touch();
            Ok(machine)
        }
        (Ok(machine), Err(error)) => {
            if let Err(failed) = machine.kill().await {
                warn!(instance = %vm, why = %chain(&failed), "a VMM that no pager serves cannot be ended");
            }
            Err(error)
        }
        // A VMM whose memory is refused was killed for that.
        (Err(OpError::Vmm(VmmError::Exited { .. })), Err(cause)) if !was_called_off(&cause) => {
            Err(cause)
        }
        (Err(error), _) => Err(error),
    }
}

fn was_called_off(error: &OpError) -> bool {
    matches!(error, OpError::Pager(PagerError::Io { .. }))
}

/// Listens at a path that may be longer than the kernel takes: it is given the directory by descriptor.
fn bind(socket: &Path) -> io::Result<UnixListener> {
    let (Some(dir), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(dir, flags, Mode::empty())?;
    UnixListener::bind(
        Path::new("/proc/self/fd")
            .join(dir.as_raw_fd().to_string())
            .join(name),
    )
}
