//! A service that is open, and what it has said.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Machine, Subject};
use crate::{Attach, Event, HotPages, ImagePager, PagerError, PagerHost, VmStats};

/// Longest that anything may take here, on the busiest of machines.
const PATIENCE: Duration = Duration::from_secs(60);

/// One life of a daemon.
pub(super) struct Bench<'a> {
    subject: &'a dyn Subject,
    pub(super) host: Box<dyn PagerHost>,
    pub(super) pager: Box<dyn ImagePager>,
    events: Receiver<Event>,
}

impl<'a> Bench<'a> {
    pub(super) fn open(subject: &'a dyn Subject, build: &'static str) -> Self {
        let host = subject.host(build);
        assert_eq!(host.unusable(), None);
        let (said, events) = channel();
        let sink = Box::new(move |event| drop(said.send(event)));
        let pager = host.open(subject.place(), sink).unwrap();
        Self {
            subject,
            host,
            pager,
            events,
        }
    }

    /// A machine that is served under this name.
    pub(super) fn served(&self, vm: &str) -> Box<dyn Machine> {
        self.served_with(vm, None)
    }

    /// One with hot pages; one without is recorded.
    pub(super) fn served_with(&self, vm: &str, hot: Option<HotPages>) -> Box<dyn Machine> {
        let mut machine = self.subject.machine();
        self.attach(vm, machine.as_mut(), hot).unwrap();
        machine
    }

    pub(super) fn attach(
        &self,
        vm: &str,
        machine: &mut dyn Machine,
        hot_pages: Option<HotPages>,
    ) -> Result<(), PagerError> {
        machine.hand_over();
        let record = hot_pages.is_none();
        self.pager.attach(Attach {
            vm: vm.to_owned(),
            listener: machine.listener(),
            expected_pid: None,
            limit: PATIENCE,
            hot_pages,
            record,
        })
    }

    pub(super) fn stats(&self, vm: &str) -> VmStats {
        let stats = self.pager.stats().unwrap();
        stats.into_iter().find(|one| one.vm == vm).unwrap().stats
    }

    /// The next thing that it says.
    pub(super) fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("nothing is said")
    }

    /// Names of the machines that another pager has now.
    pub(super) fn took_over(&self) -> Vec<String> {
        match self.event() {
            Event::TookOver { vms, .. } => vms,
            other => panic!("{other:?}"),
        }
    }

    /// Nobody is served any more but `vms`.
    pub(super) fn serves(&self, vms: &[&str]) {
        let mut served = self.pager.vms().unwrap();
        served.sort();
        assert_eq!(served, vms);
    }
}

pub(super) fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} takes for ever");
        std::thread::yield_now();
    }
}
