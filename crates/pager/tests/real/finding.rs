//! A daemon that starts finds pagers in whatever state the one before has left them.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};

use memory::Encoding;
use pager::Event;
use rustix::process::{Pid, PidfdFlags};
use serde_json::{Value, json};

use super::reference::{Layer, Reference};
use super::rig::{Rig, config};

pub(crate) const ALL: &[super::Test] = &[
    (
        "a_pager_that_cannot_be_had_keeps_nobody_from_the_image",
        a_pager_that_cannot_be_had_keeps_nobody_from_the_image,
    ),
    (
        "a_machine_that_ends_meanwhile_costs_no_other",
        a_machine_that_ends_meanwhile_costs_no_other,
    ),
    (
        "pagers_of_another_user_are_found",
        pagers_of_another_user_are_found,
    ),
    (
        "a_machine_that_hangs_up_is_over_before_that_is_told",
        a_machine_that_hangs_up_is_over_before_that_is_told,
    ),
];

const PAGES: u64 = 1024;

fn image(dir: &Path) -> Reference {
    let layers = [Layer::striped(Encoding::Packed, PAGES, 400, 0, 0)];
    Reference::new(&dir.join("image"), PAGES, &layers)
}

fn image_id(reference: &Reference) -> String {
    let image = memory::Image::open(&reference.dir).unwrap();
    image.manifest().image_id.to_string()
}

/// Answers the requests of one daemon as `answer` says, as long as it says anything.
fn play_pager(
    run_dir: &Path,
    number: u32,
    answer: impl Fn(&Value) -> Option<Value> + Send + 'static,
) {
    let listener = UnixListener::bind(run_dir.join(format!("pager-{number}.sock"))).unwrap();
    std::thread::spawn(move || {
        let (mut daemon, _) = listener.accept().unwrap();
        while let Some(request) = read(&mut daemon)
            && let Some(reply) = answer(&request["request"])
        {
            let reply = json!({ "reply": { "number": request["number"], "reply": reply } });
            let text = reply.to_string();
            let mut frame = (text.len() as u32).to_le_bytes().to_vec();
            frame.extend(text.as_bytes());
            daemon.write_all(&frame).unwrap();
        }
    });
}

fn read(daemon: &mut UnixStream) -> Option<Value> {
    let mut length = [0; 4];
    daemon.read_exact(&mut length).ok()?;
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    daemon.read_exact(&mut text).ok()?;
    Some(serde_json::from_slice(&text).unwrap())
}

fn hello(reference: &Reference, pid: u32, vms: &[&str]) -> Value {
    let served = |vm: &&str| json!({ "vm": vm, "failed": null });
    json!({ "hello": {
        "protocol": 1,
        "pid": pid,
        "image_id": image_id(reference),
        "draining": true,
        "vms": vms.iter().map(served).collect::<Vec<_>>(),
    } })
}

/// A process of this user, in place of a pager's.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Self {
        Self(Command::new("sleep").arg("600").spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One whose process is gone by now, one that serves another image, and a real one with a machine.
fn a_pager_that_cannot_be_had_keeps_nobody_from_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let first = Rig::of(dir.path(), &reference);
    let mut guest = first.guest("vm", &reference);
    let (pid, config) = (first.pid(), first.config.clone());
    drop(first);
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let ended = hello(&reference, dead.id(), &["lost"]);
    play_pager(dir.path(), 0, move |_| Some(ended.clone()));
    let mut other = hello(&reference, std::process::id(), &[]);
    other["hello"]["image_id"] = json!("another");
    play_pager(dir.path(), 7, move |_| Some(other.clone()));
    let second = Rig::adopt(config);
    assert_eq!(second.supervisor.vms().unwrap(), ["vm"]);
    assert_eq!(second.pid(), pid);
    let mut new = second.guest("new", &reference);
    for guest in [&mut guest, &mut new] {
        assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
    }
}

/// A machine may end between the pager's word that it serves it and the daemon's question for its descriptors.
fn a_machine_that_ends_meanwhile_costs_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let mut config = config(dir.path(), &reference.dir);
    config.uid = None;
    let sleeper = Sleeper::new();
    let served = hello(&reference, sleeper.0.id(), &["ended"]);
    play_pager(dir.path(), 1, move |request| match request {
        Value::String(word) if word == "hello" => Some(served.clone()),
        Value::String(word) if word == "ping" => Some(json!("done")),
        _ => Some(json!({ "refused": { "reason": "no machine ended is served here" } })),
    });
    let rig = Rig::adopt(config);
    assert_eq!(rig.supervisor.vms().unwrap(), Vec::<String>::new());
    assert_eq!(
        rig.supervisor.pids().unwrap(),
        [i32::try_from(sleeper.0.id()).unwrap()],
        "the pager itself is there"
    );
}

/// The configuration may have another user for pagers than the one that they were started as.
fn pagers_of_another_user_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let first = Rig::of(dir.path(), &reference);
    let mut guest = first.guest("vm", &reference);
    let mut config = first.config.clone();
    drop(first);
    let Some(uid) = &mut config.uid else {
        println!("skipped: only root can choose the user of a pager");
        return;
    };
    *uid += 1;
    let second = Rig::adopt(config);
    assert_eq!(second.supervisor.vms().unwrap(), ["vm"]);
    assert_eq!(guest.sum(0, PAGES), Some(reference.sum(0, PAGES)));
}

/// Its descriptors are dropped with that; a thread of it that still ran would read zeros.
fn a_machine_that_hangs_up_is_over_before_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let reference = image(dir.path());
    let rig = Rig::of(dir.path(), &reference);
    let mut guest = rig.guest("vm", &reference);
    let pid = Pid::from_raw(i32::try_from(guest.pid()).unwrap()).unwrap();
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
    guest.tell("hang-up");
    rig.event(|event| matches!(event, Event::Gone(stats) if stats.vm == "vm").then_some(()));
    let mut ended = [rustix::event::PollFd::new(
        &process,
        rustix::event::PollFlags::IN,
    )];
    let now = rustix::event::Timespec::default();
    assert_eq!(rustix::event::poll(&mut ended, Some(&now)).unwrap(), 1);
}
