//! How long things take. Prints figures; the limits are in the benchmark of the whole product.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::conformance::Subject;
use hypervisor::qemu::{MachineChoice, QemuDriver};
use hypervisor::{
    DiskFile, DiskFormat, Driver, LaunchPlan, LogFiles, MachineSpec, Nic, RamUse, RestorePlan, Vm,
    VmmError, Wake, disk,
};
use memory::{Draft, How, Image, ImageId, ManifestFacts, NewDisk, PAGE_BYTES};
use tokio::net::UnixStream;

use crate::linux::DISK_BYTES;
use crate::subject::Qemu;
use crate::{agent, wire};

const ROUNDS: usize = 20;

/// For anything a guest is asked.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Machine {
    pub(crate) vm: Arc<dyn Vm>,
    dir: PathBuf,
    chain: Vec<DiskFile>,
}

pub(crate) async fn boot(subject: &Qemu) -> Machine {
    boot_with(
        subject,
        &subject
            .driver_with(MachineChoice::Microvm, Arc::default())
            .await,
    )
    .await
}

async fn boot_with(subject: &Qemu, driver: &QemuDriver) -> Machine {
    launch(subject, driver, None).await.unwrap()
}

/// A machine with this card.
pub(crate) async fn try_boot(subject: &Qemu, nic: Option<Nic>) -> Result<Machine, VmmError> {
    let driver = subject.driver_with(subject.machine, Arc::default()).await;
    launch(subject, &driver, nic).await
}

async fn launch(
    subject: &Qemu,
    driver: &QemuDriver,
    nic: Option<Nic>,
) -> Result<Machine, VmmError> {
    let dir = subject.guest().scratch();
    std::fs::create_dir(dir.join("run")).unwrap();
    let base = DiskFile {
        path: dir.join("base"),
        format: DiskFormat::Raw,
    };
    subject.guest().make_base_disk(&base.path);
    let chain = vec![base, overlay(&dir)];
    let plan = LaunchPlan {
        name: "speed".into(),
        run_dir: dir.join("run"),
        machine: MachineSpec {
            vcpus: 1,
            ram_bytes: subject.guest().ram_bytes(),
        },
        kernel: subject.guest().kernel(),
        root: subject.guest().root(),
        disk: chain.clone(),
        logs: logs(&dir),
        nic,
    };
    Ok(Machine {
        vm: driver.launch(plan).await?,
        dir,
        chain,
    })
}

fn overlay(dir: &Path) -> DiskFile {
    let path = dir.join("top");
    disk::create_overlay(&path, DISK_BYTES).unwrap();
    DiskFile {
        path,
        format: DiskFormat::Qcow2,
    }
}

fn logs(dir: &Path) -> LogFiles {
    LogFiles {
        vmm: dir.join("vmm.log"),
        console: dir.join("console.log"),
        app: dir.join("app.log"),
    }
}

/// Times of the parts of a standby, in the order they happen.
pub(crate) async fn standby(machine: Machine) -> (Image, u64, Vec<(&'static str, Duration)>) {
    let mut times = Vec::new();
    let mut began = Instant::now();
    let mut lap = |name, times: &mut Vec<_>| {
        times.push((
            name,
            std::mem::replace(&mut began, Instant::now()).elapsed(),
        ));
    };
    machine.vm.pause().await.unwrap();
    lap("pause", &mut times);
    let id = ImageId::random().unwrap();
    let mut draft = Draft::create(
        &machine.dir.join(id.as_str()),
        id,
        &memory::Verified::default(),
    )
    .unwrap();
    let captured = machine
        .vm
        .snapshots()
        .unwrap()
        .capture(&mut draft)
        .await
        .unwrap();
    lap("capture", &mut times);
    machine.vm.quit().await.unwrap();
    lap("quit", &mut times);
    for (position, file) in machine.chain.iter().enumerate() {
        let how = if position + 1 == machine.chain.len() {
            How::Move
        } else {
            How::Link
        };
        let disk = NewDisk {
            source: file.path.clone(),
            format: file.format,
            virtual_bytes: DISK_BYTES,
            how,
        };
        draft.add_disk(&disk).unwrap();
    }
    let pages = captured.new_pages;
    let image = draft
        .finish(ManifestFacts {
            machine: captured.machine,
            root_digest: "sha256:x".into(),
        })
        .unwrap();
    lap("finish", &mut times);
    (image, pages, times)
}

fn plan(subject: &Qemu, image: &Image) -> (RestorePlan, PathBuf) {
    let dir = subject.guest().scratch();
    std::fs::create_dir(dir.join("run")).unwrap();
    let image_dir = dir.join("image");
    let (own, _) = image.link_into(&image_dir).unwrap();
    let frozen = own.manifest().disks.iter().enumerate();
    let mut chain: Vec<_> = frozen
        .map(|(position, disk)| DiskFile {
            path: own.disk_path(position),
            format: disk.format,
        })
        .collect();
    chain.push(overlay(&dir));
    let plan = RestorePlan {
        name: "speed".into(),
        run_dir: dir.join("run"),
        image_dir,
        root: subject.guest().root(),
        disk: chain,
        logs: logs(&dir),
        nic: None,
        ram: RamUse::Fork,
        memory: hypervisor::MemoryBackend::File,
        wake: Wake::Running,
    };
    (plan, dir)
}

async fn fork(subject: &Qemu, driver: &QemuDriver, image: &Image) -> Machine {
    fork_in(subject, driver, image, None).await
}

/// A fork with this card.
pub(crate) async fn fork_in(
    subject: &Qemu,
    driver: &QemuDriver,
    image: &Image,
    nic: Option<Nic>,
) -> Machine {
    let (mut plan, dir) = plan(subject, image);
    plan.nic = nic;
    let chain = plan.disk.clone();
    Machine {
        vm: driver.restore(plan).await.unwrap(),
        dir,
        chain,
    }
}

/// Forks by the driver and QEMU started by hand with the same arguments, in turn: spawn to the agent's answer.
pub(crate) async fn measure_forks(subject: &Qemu) {
    let driver = subject
        .driver_with(MachineChoice::Microvm, Arc::default())
        .await;
    let began = Instant::now();
    let machine = boot_with(subject, &driver).await;
    subject.guest().first_contact(machine.vm.as_ref()).await;
    println!(
        "  cold boot to the agent's answer: {:.0} ms",
        millis(began.elapsed())
    );
    let (image, pages, _) = standby(machine).await;
    println!("  its image: {} MiB", (pages * PAGE_BYTES as u64) >> 20);
    let began = Instant::now();
    let _hold = driver.templates().unwrap().hold(image.dir()).await.unwrap();
    println!("  loading it: {:.0} ms", millis(began.elapsed()));
    let model = fork(subject, &driver, &image).await;
    agent::connect(model.vm.as_ref()).await;
    let memory = model.vm.memory().unwrap().report().await.unwrap();
    println!("  memory of a fork that answered once: {memory:?}");
    let (mut ours, mut restored, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (plan, _) = plan(subject, &image);
        let began = Instant::now();
        let vm = driver.restore(plan).await.unwrap();
        restored.push(began.elapsed());
        agent::connect(vm.as_ref()).await;
        ours.push(began.elapsed());
        vm.kill().await.unwrap();
        by_hand.push(start_by_hand(subject, &model, &image).await);
    }
    model.vm.kill().await.unwrap();
    println!("  fork, restore() returns:  {}", figures(&mut restored));
    println!("  fork, agent answers:      {}", figures(&mut ours));
    println!("  by hand, agent answers:   {}", figures(&mut by_hand));
}

/// The command line of a running fork, with sockets by path, the state on standard input and RAM through the fork.
async fn start_by_hand(subject: &Qemu, model: &Machine, image: &Image) -> Duration {
    let dir = subject.guest().scratch();
    let top = overlay(&dir);
    let pid = model.vm.process().pid;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    let old_top = model
        .chain
        .last()
        .unwrap()
        .path
        .to_string_lossy()
        .into_owned();
    let arguments = words
        .split(|byte| *byte == 0)
        .skip(1)
        .filter(|word| !word.is_empty())
        .map(|word| {
            String::from_utf8_lossy(word)
                .replace("fd=32", "path=qmp")
                .replace("fd=33", "path=agent")
                .replace("fd:31", "fd:0")
                .replace("/proc/self/fd/30", &format!("/proc/{pid}/fd/30"))
                .replace(&old_top, &top.path.to_string_lossy())
        });
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(arguments)
        .current_dir(&dir)
        .stdin(File::open(image.state_path()).unwrap())
        .stderr(Stdio::inherit());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let stream = loop {
        match UnixStream::connect(dir.join("agent")).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    guest::Link::connect(stream, Duration::from_secs(30))
        .await
        .unwrap();
    let took = began.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    took
}

/// What a machine that was kept ready still has to do when it is wanted, with and without a rehearsal.
pub(crate) async fn measure_rehearsal(subject: &Qemu) {
    measure_rehearsal_with(subject, None).await;
    if let Some(nic) = subject.guest().nic() {
        println!("  in a network:");
        measure_rehearsal_with(subject, Some(nic)).await;
    }
}

async fn measure_rehearsal_with(subject: &Qemu, nic: Option<Nic>) {
    let driver = subject
        .driver_with(MachineChoice::Microvm, Arc::default())
        .await;
    let machine = launch(subject, &driver, nic.clone()).await.unwrap();
    let network = nic.as_ref().map(|_| wire::for_guest());
    agent::start_in(machine.vm.as_ref(), network).await;
    let (link, _events) = agent::connect(machine.vm.as_ref()).await;
    link.quiesce(PATIENCE).await.unwrap();
    let (image, _, _) = standby(machine).await;
    let _hold = driver.templates().unwrap().hold(image.dir()).await.unwrap();
    let mut laps = [const { Vec::new() }; 2];
    for round in 0..2 * ROUNDS {
        let rehearsed = round % 2;
        let fork = fork_in(subject, &driver, &image, nic.clone()).await;
        let (link, _events) = agent::connect(fork.vm.as_ref()).await;
        let mut clock = Clock::start(fork.vm.as_ref());
        if rehearsed == 1 {
            link.rehearse(PATIENCE).await.unwrap();
        }
        let mut lap = vec![clock.lap()];
        link.resume(agent::identity(), PATIENCE).await.unwrap();
        lap.push(clock.lap());
        for _ in 0..2 {
            agent::run(&link, &["/bin/true"]).await;
            lap.push(clock.lap());
        }
        laps[rehearsed].push(lap);
        fork.vm.kill().await.unwrap();
    }
    for (title, laps) in ["without", "with"].into_iter().zip(laps) {
        println!("  {title} a rehearsal");
        let names = ["rehearsal", "resume", "first command", "second command"];
        for (position, name) in names.into_iter().enumerate() {
            let (mut wall, mut cpu): (Vec<_>, Vec<_>) =
                laps.iter().map(|lap| lap[position]).unzip();
            println!(
                "    {name}: {}; CPU {}",
                figures(&mut wall),
                figures(&mut cpu)
            );
        }
    }
}

/// Time that passes, and time on processors that a VMM spends; the latter says more on a busy host.
struct Clock {
    pid: i32,
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    fn start(vm: &dyn Vm) -> Self {
        let pid = vm.process().pid;
        Self {
            pid,
            wall: Instant::now(),
            cpu: cpu_of(pid),
        }
    }

    /// Both since the last look.
    fn lap(&mut self) -> (Duration, Duration) {
        let (wall, cpu) = (Instant::now(), cpu_of(self.pid));
        (
            wall - std::mem::replace(&mut self.wall, wall),
            cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu)),
        )
    }
}

/// Processor time of all threads, by nanoseconds.
fn cpu_of(pid: i32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let spent = tasks.map(|task| {
        let text = std::fs::read_to_string(task.unwrap().path().join("schedstat"));
        let text = text.unwrap_or_default();
        text.split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or(0)
    });
    Duration::from_nanos(spent.sum())
}

/// Standby of a fork that changed 30 MiB, and of one that did next to nothing.
pub(crate) async fn measure_standby(subject: &Qemu) {
    let driver = subject
        .driver_with(MachineChoice::Microvm, Arc::default())
        .await;
    let machine = boot_with(subject, &driver).await;
    subject.guest().first_contact(machine.vm.as_ref()).await;
    // Half of RAM in use, as in a machine that has worked for a while.
    agent::shell(
        machine.vm.as_ref(),
        "dd if=/dev/urandom of=/dev/shm/used bs=1M count=70 2>/dev/null",
    )
    .await;
    let (image, pages, times) = standby(machine).await;
    print_standby("first", pages, &times);
    for mib in [0, 30, 30, 30] {
        let fork = fork(subject, &driver, &image).await;
        let fill = format!("dd if=/dev/urandom of=/dev/shm/new bs=1M count={mib} 2>/dev/null");
        agent::shell(fork.vm.as_ref(), &fill).await;
        let (saved, pages, times) = standby(fork).await;
        print_standby(&format!("fork, {mib} MiB written"), pages, &times);
        saved.verify(&memory::Verified::default()).unwrap();
    }
}

fn print_standby(name: &str, pages: u64, times: &[(&str, Duration)]) {
    let parts: Vec<_> = times
        .iter()
        .map(|(part, time)| format!("{part} {:.1}", millis(*time)))
        .collect();
    let total: Duration = times.iter().map(|(_, time)| *time).sum();
    let mib = pages as f64 * PAGE_BYTES as f64 / f64::from(1 << 20);
    println!(
        "  standby ({name}): {mib:.1} MiB, {} = {:.1} ms",
        parts.join(" + "),
        millis(total)
    );
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn figures(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: usize| millis(times[(times.len() - 1) * share / 100]);
    format!(
        "median {:.1} ms (min {:.1}, p90 {:.1})",
        at(50),
        at(0),
        at(90)
    )
}
