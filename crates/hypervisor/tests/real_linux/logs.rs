//! The output of a guest's program.

use std::path::Path;
use std::time::{Duration, Instant};

use hypervisor::conformance::{Rig, Subject};
use hypervisor::{RamUse, Vm};
use memory::Image;

use crate::agent;
use crate::subject::Firecracker;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the program says is in the file of the machine that it says it in: of the first one, and of the one that its
/// image becomes.
pub(crate) async fn output_is_in_the_app_log(subject: &Firecracker) {
    let rig = Rig::new(subject as &dyn Subject).await;
    let plan = rig.launch_plan();
    let log = plan.logs.app.clone();
    let machine = rig.start(plan).await;
    say(machine.vm.as_ref(), "first").await;
    expect(&log, "first").await;
    let saved = rig.standby(machine).await;

    let image: &Image = &saved.image;
    let plan = rig.restore_plan(image, RamUse::Fork, hypervisor::Wake::Running);
    let log = plan.logs.app.clone();
    let fork = rig.try_restore(plan).await.unwrap();
    let (link, _events) = agent::connect(fork.vm.as_ref()).await;
    link.resume(agent::identity(), PATIENCE).await.unwrap();
    say(fork.vm.as_ref(), "second").await;
    expect(&log, "second").await;
    fork.vm.kill().await.unwrap();
}

/// Writes to where the program writes.
async fn say(vm: &dyn Vm, word: &str) {
    let script = format!("echo {word} > /proc/$(pidof sleep | awk '{{print $NF}}')/fd/1");
    agent::shell(vm, &script).await;
}

async fn expect(log: &Path, word: &str) {
    let began = Instant::now();
    while !std::fs::read_to_string(log)
        .unwrap_or_default()
        .contains(word)
    {
        assert!(began.elapsed() < PATIENCE, "{word} is not in the log");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
