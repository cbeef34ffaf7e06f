//! What only QEMU has.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hypervisor::Nic;
use hypervisor::conformance::{Rig, Scenario, Subject};
use hypervisor::qemu::MachineChoice;

use crate::subject::Qemu;
use crate::{connected, speed};

type Run = for<'a> fn(&'a Qemu) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Tests by name.
pub(crate) const ALL: [(&str, Run); 6] = [
    ("q35_restores", |subject| Box::pin(q35_restores(subject))),
    ("unprivileged_restores", |subject| {
        Box::pin(unprivileged_restores(subject))
    }),
    ("a_lost_network_is_told", |subject| {
        Box::pin(a_lost_network_is_told(subject))
    }),
    ("connections_end_with_their_machine", |subject| {
        Box::pin(connected::connections_end_with_their_machine(subject))
    }),
    ("kvm_is_judged", |subject| Box::pin(kvm_is_judged(subject))),
    ("redialled_at_once", |subject| {
        Box::pin(redialled_at_once(subject))
    }),
];

/// Run only when named: figures, not verdicts.
pub(crate) const MEASUREMENTS: [(&str, Run); 3] = [
    ("measure_forks", |subject| {
        Box::pin(speed::measure_forks(subject))
    }),
    ("measure_rehearsal", |subject| {
        Box::pin(speed::measure_rehearsal(subject))
    }),
    ("measure_standby", |subject| {
        Box::pin(speed::measure_standby(subject))
    }),
];

/// Whatever this host is: the verdict is reached in time, explained, and remembered.
async fn kvm_is_judged(subject: &Qemu) {
    let config = subject.config(Vec::new());
    let first = hypervisor::qemu::probe(&config).await.unwrap();
    println!("  {}: {}", first.version, first.kvm.explain());
    let began = Instant::now();
    assert_eq!(hypervisor::qemu::probe(&config).await.unwrap(), first);
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "the verdict was not remembered"
    );
}

/// A connection that follows the end of another without a pause is answered like any other.
async fn redialled_at_once(subject: &Qemu) {
    let machine = speed::boot(subject).await;
    subject.guest().first_contact(machine.vm.as_ref()).await;
    for number in 0..100 {
        let stream = machine.vm.dial(Duration::from_secs(5)).await.unwrap();
        let greeted = guest::Link::connect(stream, Duration::from_secs(5)).await;
        assert!(greeted.is_ok(), "connection {number}: {:?}", greeted.err());
    }
    machine.vm.kill().await.unwrap();
}

/// What is missing of a machine's network is named, and no machine runs without it.
async fn a_lost_network_is_told(subject: &Qemu) {
    let Some(nic) = subject.guest().nic() else {
        println!("  skipped: there is no network to put a machine into");
        return;
    };
    let no_namespace = Nic {
        netns: "/run/netns/coppice-no-such".into(),
        ..nic.clone()
    };
    // A mount point whose mount is gone is an empty file.
    let no_mount = Nic {
        netns: subject.guest().scratch().join("netns"),
        ..nic.clone()
    };
    std::fs::write(&no_mount.netns, "").unwrap();
    let no_tap = Nic {
        tap: "tap7".into(),
        ..nic.clone()
    };
    for (nic, word) in [
        (no_namespace, "coppice-no-such is gone"),
        (no_mount, "netns is gone"),
        (no_tap, "tap7: No such device"),
    ] {
        let error = speed::try_boot(subject, Some(nic)).await.err().unwrap();
        assert!(error.to_string().contains(word), "{error}");
    }

    let machine = speed::try_boot(subject, Some(nic.clone())).await.unwrap();
    let error = speed::try_boot(subject, Some(nic)).await.err().unwrap();
    assert!(
        error.to_string().contains("tap0: Device or resource busy"),
        "{error}"
    );
    machine.vm.kill().await.unwrap();
}

/// User and group `nobody`.
const NOBODY: u32 = 65534;

/// The other machine model boots, saves and restores too.
async fn q35_restores(subject: &Qemu) {
    let mut q35 = subject.another();
    q35.machine = MachineChoice::Q35;
    Scenario::StandbyRestore.run(&q35).await;
    Scenario::NicMustFit.run(&q35).await;
}

/// VMMs run as another user than the daemon, which saves and restores them all the same.
async fn unprivileged_restores(subject: &Qemu) {
    if !rustix::process::geteuid().is_root() {
        println!("  skipped: only root can start programs as another user");
        return;
    }
    let mut unprivileged = subject.another();
    unprivileged.vmm_uid = Some(NOBODY);
    Scenario::DiffStandby.run(&unprivileged).await;
    Scenario::NicMustFit.run(&unprivileged).await;
    nothing_to_write_where_the_notes_are(&unprivileged).await;
}

/// The daemon signals the process that the notes name, and reads the image that they name: a VMM that its guest has
/// taken over must not be able to change them, nor an image that it was saved to.
async fn nothing_to_write_where_the_notes_are(subject: &Qemu) {
    let rig = Rig::new(subject).await;
    let machine = rig.launch().await;
    let status = format!("/proc/{}/status", machine.vm.process().pid);
    let status = std::fs::read_to_string(status).unwrap();
    assert!(status.contains(&format!("Uid:\t{NOBODY}\t")), "{status}");
    let run = machine.dir.join("run");
    let notes = ["vmm.pid", "vmm.json"].map(|name| run.join(name));
    for path in notes.iter().chain([&run]) {
        expect_not_writable(path);
    }
    let saved = rig.standby(machine).await;
    expect_not_writable(&saved.image.state_path());
}

/// By the user that owns nothing else here.
fn expect_not_writable(path: &Path) {
    let metadata = std::fs::metadata(path).unwrap();
    assert_ne!(metadata.uid(), NOBODY, "{}", path.display());
    assert_eq!(metadata.mode() & 0o002, 0, "{}", path.display());
}
