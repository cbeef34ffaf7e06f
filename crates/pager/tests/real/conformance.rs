//! The suite of all services of pagers, on real processes and on the fake that the daemon's tests have.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::rc::Rc;

use memory::Encoding;
use pager::conformance::{Machine, Scenario, Subject};
use pager::fake::{FakeMachine, FakePagers};
use pager::{PagerHost, PagerProcesses, Place};
use rustix::process::Signal;
use tempfile::TempDir;

use super::guest::Guest;
use super::reference::{Layer, Reference};
use super::rig::{config, send};

pub(crate) const ALL: &[super::Test] = &[
    ("real_pagers_conform", real_pagers_conform),
    (FAKE, fake_pagers_conform),
];

/// This one needs no userfaultfd.
pub(crate) const FAKE: &str = "fake_pagers_conform";

const PAGES: u64 = 1024;

fn real_pagers_conform() {
    for scenario in Scenario::ALL {
        println!("{scenario:?}");
        scenario.run(&Real::new());
    }
}

fn fake_pagers_conform() {
    for scenario in Scenario::ALL {
        println!("{scenario:?}");
        scenario.run(&Fake::new());
    }
}

/// A place with an image whose pages lie in its file where they lie in RAM.
fn place() -> (TempDir, Place, Reference) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path().join("place"));
    std::fs::create_dir_all(place.run()).unwrap();
    let layers = [Layer::whole(Encoding::Flat, PAGES, 0)];
    let reference = Reference::new(&place.image(), PAGES, &layers);
    (dir, place, reference)
}

struct Real {
    _dir: TempDir,
    place: Place,
    reference: Rc<Reference>,
}

impl Real {
    fn new() -> Self {
        let (dir, place, reference) = place();
        Self {
            _dir: dir,
            place,
            reference: Rc::new(reference),
        }
    }

    /// Process numbers of its pagers, which rise.
    fn pagers(&self) -> Vec<i32> {
        let place = self.place.root().display().to_string();
        let serves = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&place)
        };
        let entries = std::fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let mut pids: Vec<i32> = pids.filter(serves).collect();
        pids.sort_unstable();
        pids
    }
}

impl Subject for Real {
    fn host(&self, build: &'static str) -> Box<dyn PagerHost> {
        let known = config(self.place.root(), &self.place.image());
        Box::new(PagerProcesses {
            program: known.program,
            arguments: known.arguments,
            build: build.to_owned(),
            uid: known.uid,
            settings: known.settings,
            limits: known.limits,
            lack: None,
        })
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn machine(&self) -> Box<dyn Machine> {
        Box::new(RealMachine {
            guest: Guest::start(self.reference.bytes.len()),
            reference: Rc::clone(&self.reference),
        })
    }

    fn lose_first_pager(&self) {
        send(self.pagers()[0], Signal::KILL);
    }

    fn damage(&self, page: u64) {
        let part = (page as f64 + 0.5) / PAGES as f64;
        self.reference.damage(0, "pages", part);
    }
}

struct RealMachine {
    guest: Guest,
    reference: Rc<Reference>,
}

impl Machine for RealMachine {
    fn listener(&self) -> &UnixListener {
        &self.guest.listener
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.guest.pid()).unwrap()
    }

    fn hand_over(&mut self) {
        self.guest.tell("hand-over");
    }

    fn is_right(&mut self, first: u64, count: u64) -> Option<bool> {
        self.guest.tell(&format!("sum {first} {count} 2"));
        loop {
            let found = self.guest.result()?;
            // It has handed over before.
            if found != "done" {
                return Some(found == self.reference.sum(first, count));
            }
        }
    }

    fn end(&mut self) {
        send(self.pid(), Signal::KILL);
    }

    fn has_ended(&mut self) {
        self.guest.ended();
    }
}

struct Fake {
    _dir: TempDir,
    place: Place,
    pagers: FakePagers,
}

impl Fake {
    fn new() -> Self {
        let (dir, place, _) = place();
        Self {
            _dir: dir,
            place,
            pagers: FakePagers::default(),
        }
    }
}

impl Subject for Fake {
    fn host(&self, build: &'static str) -> Box<dyn PagerHost> {
        Box::new(self.pagers.of_build(build))
    }

    fn place(&self) -> &Place {
        &self.place
    }

    fn machine(&self) -> Box<dyn Machine> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("uffd.sock");
        Box::new(Handed {
            listener: UnixListener::bind(&socket).unwrap(),
            socket,
            machine: None,
            _dir: dir,
        })
    }

    fn lose_first_pager(&self) {
        self.pagers.lose_first(&self.place);
    }

    fn damage(&self, page: u64) {
        self.pagers.damage(page);
    }
}

struct Handed {
    listener: UnixListener,
    socket: PathBuf,
    machine: Option<FakeMachine>,
    _dir: TempDir,
}

impl Machine for Handed {
    fn listener(&self) -> &UnixListener {
        &self.listener
    }

    fn pid(&self) -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    fn hand_over(&mut self) {
        self.machine = Some(FakeMachine::hand_over(&self.socket).unwrap());
    }

    fn is_right(&mut self, first: u64, count: u64) -> Option<bool> {
        let machine = self.machine.as_mut().unwrap();
        let is_served = (first..first + count).all(|page| machine.touch(page));
        is_served.then_some(true)
    }

    fn end(&mut self) {
        self.machine.as_mut().unwrap().end();
    }

    fn has_ended(&mut self) {
        self.machine.as_mut().unwrap().has_ended();
    }
}
