//! What wakes an actor, and what of it comes first.

use futures::FutureExt as _;
use guest::{Events, GuestEvent};
use hypervisor::{ExitReason, Vm};
use model::VmmFact;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::OpError;
use super::actor::{Actor, Up};
use super::command::Envelope;
use super::warm::WarmNews;

/// Everything that can wake the actor.
pub(super) enum Wake {
    Command(Envelope),
    VmmExited(ExitReason),
    PoweredOff,
    GuestUp(Result<Up, OpError>),
    Guest(GuestEvent),
    Warm(WarmNews),
    NoMoreSenders,
}

impl Actor {
    /// Waits for whatever comes first. What the machine does goes before what is asked
    /// of it: a request must not be decided on a state that is already past.
    pub(super) async fn next(&mut self, mailbox: &mut mpsc::Receiver<Envelope>) -> Wake {
        let vm = self.vm.clone();
        let wait_for_power_off = !matches!(self.vmm, VmmFact::Shutdown);
        tokio::select! {
            biased;
            reason = exited(vm.as_deref()) => Wake::VmmExited(reason),
            () = power_off(vm.as_deref()), if wait_for_power_off => powered_off_or_ended(vm.as_deref()),
            result = joined(&mut self.bring_up) => Wake::GuestUp(result),
            event = next_event(&mut self.events) => Wake::Guest(event),
            news = self.warm.news() => Wake::Warm(news),
            envelope = mailbox.recv() => envelope.map_or(Wake::NoMoreSenders, Wake::Command),
        }
    }
}

async fn exited(vm: Option<&dyn Vm>) -> ExitReason {
    match vm {
        Some(vm) => vm.exited().await,
        None => std::future::pending().await,
    }
}

async fn power_off(vm: Option<&dyn Vm>) {
    match vm {
        Some(vm) => vm.powered_off().await,
        None => std::future::pending().await,
    }
}

/// A wait for the guest's power-off is over as well when the VMM has ended, which may have
/// been after it was asked for its end: a VMM that died did not power off.
fn powered_off_or_ended(vm: Option<&dyn Vm>) -> Wake {
    match exited(vm).now_or_never() {
        Some(reason) => Wake::VmmExited(reason),
        None => Wake::PoweredOff,
    }
}

pub(super) async fn joined(
    task: &mut Option<JoinHandle<Result<Up, OpError>>>,
) -> Result<Up, OpError> {
    let Some(handle) = task else {
        return std::future::pending().await;
    };
    let result = handle.await;
    *task = None;
    match result {
        Ok(result) => result,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        // Aborted: whoever aborted it has already dealt with the guest.
        Err(_) => std::future::pending().await,
    }
}

async fn next_event(events: &mut Option<Events>) -> GuestEvent {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
