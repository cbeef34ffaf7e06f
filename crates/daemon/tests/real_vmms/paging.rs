//! Forks whose memory comes from real pagers.

use std::os::unix::fs::{FileExt as _, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemon::instances::{Figures, LogSource, PagerPolicy};
use hypervisor::ProcessId;
use model::{BackendWish, Compression, InstanceId, State};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Builder;

use crate::Run;
use crate::host::{Host, PAGING};
use crate::life::{Life, PATIENCE, is_alive, several};
use crate::probe::{BALLAST, BALLAST_PAGES, FREE_PAGE, Line};

/// Where Firecracker runs.
pub(crate) const ON_PAGERS: [(&str, Run); 8] = [
    (
        "forks_share_a_pager_and_its_memory_is_right",
        forks_share_a_pager,
    ),
    (
        "a_pager_that_is_killed_costs_no_byte",
        a_pager_that_is_killed,
    ),
    ("a_damaged_image_ends_who_needs_it", a_damaged_image),
    (
        "a_damaged_compressed_image_ends_who_needs_it",
        a_damaged_compressed_image,
    ),
    (
        "what_a_damaged_image_ended_without_a_daemon_is_told",
        a_damaged_image_without_a_daemon,
    ),
    ("a_complete_machine_needs_no_pager", a_complete_machine),
    ("pagers_are_found_by_the_next_daemon", pagers_are_found),
    ("pagers_of_another_build_drain", pagers_of_another_build),
];

/// What is different when machines have two processors, which both read at once.
pub(crate) const WITH_TWO_VCPUS: [(&str, Run); 2] = [ON_PAGERS[0], ON_PAGERS[1]];

const FORKS: u32 = 8;

/// Times that pagers are killed.
const LOSSES: usize = 3;

fn wrong(life: &Life<'_>, id: &InstanceId) -> String {
    life.ask(id, &format!("wrong {FREE_PAGE} {BALLAST_PAGES} {BALLAST}"))
}

fn on_pager(life: &Life<'_>, source: &InstanceId, prefix: &str, count: u32) -> Vec<InstanceId> {
    life.forks_from(source, prefix, several(count), Some(BackendWish::Uffd))
}

fn figures(life: &Life<'_>, id: &InstanceId) -> Figures {
    let paged = life.published(id).paged.unwrap();
    life.run(paged.figures()).unwrap()
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} takes for ever");
        std::thread::yield_now();
    }
}

/// Process numbers of the pagers of this host.
fn pagers(host: &Host) -> Vec<i32> {
    let place = host.layout.pagers().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.contains(&place)
            && let Ok(pid) = entry.file_name().to_string_lossy().parse()
        {
            found.push(pid);
        }
    }
    found
}

fn kill_pagers(host: &Host) {
    pagers(host).into_iter().for_each(kill);
}

fn kill(pid: i32) {
    signal(pid, Signal::KILL);
}

fn signal(pid: i32, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// Processors of a machine that wait for a page.
fn waiting_vcpus(machine: ProcessId) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", machine.pid)).unwrap();
    let waits = |task: &PathBuf| {
        let read = |name| std::fs::read_to_string(task.join(name)).unwrap_or_default();
        read("comm").starts_with("fc_vcpu") && read("wchan") == "handle_userfault"
    };
    tasks.map(|task| task.unwrap().path()).filter(waits).count()
}

fn journal(host: &Host, id: &InstanceId) -> String {
    let log = host.layout.instance(id).log(LogSource::Operations);
    std::fs::read_to_string(log).unwrap()
}

fn exit_message(host: &Host, id: &InstanceId) -> String {
    let record = host.records.instance(id).unwrap().record;
    record.exit.unwrap().message.unwrap()
}

fn forks_share_a_pager(host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let first = on_pager(&life, &template, "first", 1).remove(0);
    assert!(figures(&life, &first).recording);
    assert_eq!(life.exec(&first, "counter"), "2");
    assert_eq!(wrong(&life, &first), "0");
    life.run(async { life.instances.executed(&first) });
    let image = host
        .records
        .instance(&template)
        .unwrap()
        .record
        .standby
        .unwrap();
    let store = life
        .instances
        .pagers()
        .hot_store(&host.layout.instance(&template), &image);
    until("a recording", || store.load().is_some());

    let forks = on_pager(&life, &template, "fork", FORKS);
    assert_eq!(pagers(&host).len(), 1, "one for all");
    for (seed, fork) in (10..).zip(&forks) {
        assert_eq!(life.exec(fork, "counter"), "2");
        assert_eq!(wrong(&life, fork), "0");
        life.ask(fork, &format!("tag {FREE_PAGE} 64 {seed}"));
    }
    for (seed, fork) in (10..).zip(&forks) {
        assert_eq!(life.ask(fork, &format!("wrong {FREE_PAGE} 64 {seed}")), "0");
    }
    // All but the one that is watched again.
    let had = forks.iter().map(|fork| figures(&life, fork));
    let had: Vec<_> = had.filter(|figures| !figures.recording).collect();
    assert!(had.len() + 1 >= FORKS as usize);
    for figures in had {
        assert!(
            figures.hot_bytes > 0,
            "what the first fork touched is known: {figures:?}"
        );
        assert!(
            figures.stats.ahead_bytes > 0,
            "and is there before it is needed: {figures:?}"
        );
    }
    let mapped = life.forks_from(&template, "mapped", several(1), None);
    assert!(
        life.published(&mapped[0]).paged.is_none(),
        "a plain image is mapped"
    );
    assert_eq!(wrong(&life, &mapped[0]), "0");
    life.delete(forks.into_iter().chain([first]).chain(mapped));
    until("the end of the pager", || pagers(&host).is_empty());
    life.delete([template]);
    life.end();
}

fn a_pager_that_is_killed(host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    for round in 0..LOSSES {
        let fork = on_pager(&life, &template, &format!("fork{round}"), 1).remove(0);
        let pid = life.process(&fork);
        // All processors have what they need to read on.
        life.ask(&fork, &format!("wrong {FREE_PAGE} 16 {BALLAST}"));
        std::thread::scope(|scope| {
            if round % 2 == 0 {
                let stop = |pid| signal(pid, Signal::STOP);
                pagers(&host).into_iter().for_each(stop);
            }
            let bad = scope.spawn(|| wrong(&life, &fork));
            if round % 2 == 0 {
                let all_wait = || waiting_vcpus(pid.unwrap()) == host.vcpus as usize;
                until("waiting for pages", all_wait);
            }
            kill_pagers(&host);
            assert_eq!(bad.join().unwrap(), "0", "round {round}");
        });
        let took_over = || journal(&host, &fork).contains("another one took over");
        until("taking over", took_over);
        assert_eq!(wrong(&life, &fork), "0");
        assert_eq!(life.process(&fork), pid);
        assert_eq!(figures(&life, &fork).stats.takeovers, 1);
        life.delete([fork]);
    }
    life.delete([template]);
    life.end();
}

/// Damages the last pages of the image's RAM, which are those that the guest was filled with.
fn damage(host: &Host, template: &InstanceId) {
    let memory = host.layout.instance(template).memory();
    let image = std::fs::read_dir(memory)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let is_ram = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "pages");
    let files = std::fs::read_dir(image).unwrap();
    let ram = files.map(|file| file.unwrap().path()).find(is_ram).unwrap();
    std::fs::set_permissions(&ram, PermissionsExt::from_mode(0o600)).unwrap();
    let file = std::fs::File::options().write(true).open(&ram).unwrap();
    // No chunk that is stored there is left as it was.
    let length = file.metadata().unwrap().len();
    for at in (length * 3 / 4..length - 6).step_by(64) {
        file.write_all_at(b"damage", at).unwrap();
    }
}

fn a_damaged_compressed_image(mut host: Host) {
    host.compression = Compression::Zstd { level: 1 };
    a_damaged_image(host);
}

fn a_damaged_image(host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    damage(&host, &template);
    let forks = on_pager(&life, &template, "fork", 2);
    let (reader, other) = (&forks[0], &forks[1]);
    let vm = life.guest_vm(reader);
    let process = life.process(reader).unwrap();
    let answer = life.run(async {
        let mut line = Line::to(vm.as_ref()).await?;
        let ask = format!("wrong {FREE_PAGE} {BALLAST_PAGES} {BALLAST}");
        line.ask(&ask).await
    });
    assert!(answer.is_err(), "bad bytes were served: {answer:?}");
    life.reach(reader, State::Stopped);
    assert!(!is_alive(process));
    let message = exit_message(&host, reader);
    assert!(message.contains("its memory cannot be served"), "{message}");
    assert!(message.contains(".pages: checksum of chunk"), "{message}");
    assert!(journal(&host, reader).contains("its memory cannot be served"));
    assert_eq!(
        life.state(other),
        State::Running,
        "who does not need it goes on"
    );
    assert_eq!(life.exec(other, "counter"), "2");
    life.delete(forks);
    life.delete([template]);
    life.end();
}

/// The kernel ends the machine at once (Linux 6.6), and its pager keeps why.
fn a_damaged_image_without_a_daemon(host: Host) {
    if !pager::userfaultfd().unwrap().poison {
        println!("skipped: this kernel cannot poison missing pages");
        return;
    }
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    damage(&host, &template);
    let reader = on_pager(&life, &template, "reader", 1).remove(0);
    let vm = life.guest_vm(&reader);
    let process = life.process(&reader).unwrap();
    // A line to the guest that outlives the daemon.
    let away = Builder::new_current_thread().enable_all().build().unwrap();
    let mut line = away.block_on(Line::to(vm.as_ref())).unwrap();
    life.end();
    let ask = format!("wrong {FREE_PAGE} {BALLAST_PAGES} {BALLAST}");
    let answer = away.block_on(line.ask(&ask));
    assert!(answer.is_err(), "bad bytes were served: {answer:?}");
    until("the end of the machine", || !is_alive(process));
    let life = Life::begin(&host);
    life.reach(&reader, State::Stopped);
    let message = exit_message(&host, &reader);
    assert!(message.contains(".pages: checksum of chunk"), "{message}");
    life.delete([reader, template]);
    life.end();
}

fn a_complete_machine(mut host: Host) {
    host.paging = PagerPolicy {
        graduate_after: Some(Duration::ZERO),
        graduate_rate: 1 << 30,
        ..PAGING
    };
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let fork = on_pager(&life, &template, "fork", 1).remove(0);
    until("completing it", || figures(&life, &fork).complete);
    until("the end of the pager", || pagers(&host).is_empty());
    assert_eq!(wrong(&life, &fork), "0");
    let process = life.process(&fork);
    life.end();
    // The next daemon finds no pager, and no need of one.
    let life = Life::begin(&host);
    life.reach(&fork, State::Running);
    assert_eq!(life.process(&fork), process);
    assert_eq!(wrong(&life, &fork), "0");
    life.delete([fork, template]);
    life.end();
}

fn pagers_are_found(host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let fork = on_pager(&life, &template, "fork", 1).remove(0);
    let process = life.process(&fork).unwrap();
    let serving = pagers(&host);
    life.end();
    let life = Life::begin(&host);
    life.reach(&fork, State::Running);
    assert_eq!(life.process(&fork), Some(process));
    assert_eq!(pagers(&host), serving);
    assert_eq!(wrong(&life, &fork), "0");
    let late = on_pager(&life, &template, "late", 1).remove(0);
    life.end();
    // Nobody holds what would be needed to go on.
    kill_pagers(&host);
    until("the end of the pager", || pagers(&host).is_empty());
    let life = Life::begin(&host);
    life.reach(&late, State::Stopped);
    let message = exit_message(&host, &late);
    assert!(message.contains("its pager is gone"), "{message}");
    life.delete([late, fork, template]);
    life.end();
}

/// Two daemons after the one that started the first machines, each of a build of its own.
fn pagers_of_another_build(mut host: Host) {
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let early = on_pager(&life, &template, "early", 1).remove(0);
    let (process, old) = (life.process(&early), pagers(&host));
    life.end();
    host.build = "second";
    let life = Life::begin(&host);
    life.reach(&early, State::Running);
    assert_eq!(life.process(&early), process);
    let late = on_pager(&life, &template, "late", 1).remove(0);
    let new: Vec<i32> = pagers(&host)
        .into_iter()
        .filter(|pid| !old.contains(pid))
        .collect();
    assert_eq!((old.len(), new.len()), (1, 1), "beside each other");
    for fork in [&early, &late] {
        assert_eq!(life.exec(fork, "counter"), "2");
        assert_eq!(wrong(&life, fork), "0");
    }
    let bad = std::thread::scope(|scope| {
        let bad = scope.spawn(|| wrong(&life, &early));
        kill(old[0]);
        bad.join().unwrap()
    });
    assert_eq!(bad, "0");
    until("taking over", || {
        journal(&host, &early).contains("another one took over")
    });
    assert!(!journal(&host, &late).contains("another one took over"));
    assert_eq!(figures(&life, &early).stats.takeovers, 1);
    assert_eq!(pagers(&host), new, "both are served by the new build");
    life.end();
    host.build = "third";
    let life = Life::begin(&host);
    for fork in [&early, &late] {
        life.reach(fork, State::Running);
        assert_eq!(wrong(&life, fork), "0");
    }
    let last = on_pager(&life, &template, "last", 1).remove(0);
    life.delete([early, late]);
    until("the end of the drained pager", || {
        pagers(&host).len() == 1 && !pagers(&host).contains(&new[0])
    });
    assert_eq!(life.exec(&last, "counter"), "2");
    assert_eq!(wrong(&life, &last), "0");
    life.delete([last, template]);
    until("the end of the last pager", || pagers(&host).is_empty());
    life.end();
}
