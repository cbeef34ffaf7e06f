//! Hot pages of a template whose forks map its memory.

use std::time::Instant;

use daemon::instances::MappedFigures;
use hypervisor::MemoryUse;
use hypervisor::firecracker::shmem_keeps_pages_apart;
use memory::PAGE_BYTES;
use model::InstanceId;

use crate::Run;
use crate::host::Host;
use crate::life::{Life, PATIENCE, several};
use crate::probe::{BALLAST, BALLAST_PAGES, FREE_PAGE};

/// On every VMM.
pub(crate) const ON_ONE: [(&str, Run); 1] = [(
    "what_one_fork_touches_is_mapped_in_those_that_are_prepared",
    what_one_fork_touches,
)];

const BALLAST_BYTES: u64 = BALLAST_PAGES * PAGE_BYTES as u64;

/// What the kernel maps for one fault.
const PAGES_A_FAULT: u64 = 16;

fn figures(life: &Life<'_>, id: &InstanceId) -> MappedFigures {
    life.published(id).mapped.unwrap().figures()
}

fn memory(life: &Life<'_>, id: &InstanceId) -> MemoryUse {
    let vm = life.guest_vm(id);
    life.run(async { vm.memory().unwrap().report().await.unwrap() })
}

fn read_ballast(life: &Life<'_>, id: &InstanceId) {
    let wrong = life.ask(id, &format!("wrong {FREE_PAGE} {BALLAST_PAGES} {BALLAST}"));
    assert_eq!(wrong, "0");
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "{what} takes for ever");
        std::thread::yield_now();
    }
}

/// Waits until a fork of the template is prepared.
fn until_warm(life: &Life<'_>, template: &InstanceId) {
    until("preparing a fork", || {
        !life.published(template).warm.is_empty()
    });
}

fn fork(life: &Life<'_>, template: &InstanceId, name: &str) -> InstanceId {
    life.forks(template, name, several(1)).remove(0)
}

fn what_one_fork_touches(mut host: Host) {
    if !shmem_keeps_pages_apart() {
        println!("skipped: this host keeps files in memory on huge pages");
        return;
    }
    host.warm = 1;
    let life = Life::begin(&host);
    let template = life.template("template", host.vmms[0]);
    let first = fork(&life, &template, "first");
    until("a recording", || figures(&life, &first).recording);
    let before = memory(&life, &first).page_faults;
    read_ballast(&life, &first);
    let faults = memory(&life, &first).page_faults - before;
    assert!(faults > BALLAST_PAGES / PAGES_A_FAULT / 2, "{faults}");
    assert_eq!(life.exec(&first, "counter"), "2");
    life.run(async { life.instances.executed(&first) });
    let record = host.records.instance(&template).unwrap().record;
    let dir = host.layout.instance(&template);
    let image = record.standby.unwrap();
    let store = life.instances.pagers().hot_store(&dir, &image);
    until("keeping it", || store.load().is_some());
    let hot_bytes = store.load().unwrap().page_count() * PAGE_BYTES as u64;
    assert!(hot_bytes >= BALLAST_BYTES);

    // The one that was prepared when nothing was known goes; those that are prepared now have what is.
    until_warm(&life, &template);
    let early = fork(&life, &template, "early");
    let mut forks = vec![first, early];
    for name in ["second", "third"] {
        until_warm(&life, &template);
        let fork = fork(&life, &template, name);
        until("mapping hot pages", || {
            figures(&life, &fork).ahead_bytes > 0
        });
        let done = figures(&life, &fork);
        assert_eq!((done.recording, done.hot_bytes), (false, hot_bytes));
        // But for what it touches on its way up.
        assert!(done.ahead_bytes >= BALLAST_BYTES / 4 * 3, "{done:?}");
        let had = memory(&life, &fork);
        assert!(had.ram_shared_bytes >= BALLAST_BYTES, "{had:?}");
        assert!(had.ram_private_bytes < BALLAST_BYTES / 4, "{had:?}");
        read_ballast(&life, &fork);
        let faults = memory(&life, &fork).page_faults - had.page_faults;
        assert!(faults < BALLAST_PAGES / PAGES_A_FAULT / 2, "{faults}");
        forks.push(fork);
    }
    let last = forks.last().unwrap();
    life.ask(last, &format!("tag {FREE_PAGE} 64 9"));
    assert_eq!(life.ask(last, &format!("wrong {FREE_PAGE} 64 9")), "0");
    for other in &forks[..forks.len() - 1] {
        read_ballast(&life, other);
    }
    life.run(life.instances.drop_warm());
    life.delete(forks.into_iter().chain([template]));
    life.end();
}
