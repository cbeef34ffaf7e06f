//! Waiting in steps shorter than those of the runtime's clock, which are milliseconds.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A tick every so often.
pub(super) struct Ticks(AsyncFd<OwnedFd>);

impl Ticks {
    /// The first one comes after `period`, which is less than a second. Must be called inside a tokio runtime.
    pub(super) fn every(period: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let period = Timespec {
            tv_sec: 0,
            tv_nsec: period.subsec_nanos().into(),
        };
        let setting = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &setting)?;
        Ok(Self(crate::process::watch(timer)?))
    }

    /// Waits for the next one; several that were missed are one.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let count = rustix::io::read(self.0.get_ref(), &mut [0; 8]);
        ready.clear_ready();
        match count {
            Err(rustix::io::Errno::AGAIN) | Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
