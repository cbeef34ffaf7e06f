//! What a guest is told about itself.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use model::{InstanceId, InstanceRecord};
use protocol::{GuestNetwork, Identity, MachineId, PostFork, StartSpec};
use sha2::{Digest, Sha256};

use crate::entropy;
use crate::store::ImageRecord;

/// How long a hook from an image's label may run.
const LABEL_HOOK_TIMEOUT_MS: u64 = 30_000;
/// The image label that holds a hook: a command line for `/bin/sh -c`.
const HOOK_LABEL: &str = "dev.coppice.post-fork";
/// SIGTERM, what OCI images mean when they name no stop signal.
const SIGTERM: i32 = 15;

/// What a machine needs to start its program for the first time.
pub(super) fn start_spec(record: &InstanceRecord, image: &ImageRecord, zone: &str) -> StartSpec {
    let entrypoint = record.spec.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    // As with Docker: a new entrypoint drops the image's cmd, which was meant for the old.
    let cmd = match (&record.spec.cmd, &record.spec.entrypoint) {
        (Some(cmd), _) => cmd.clone(),
        (None, Some(_)) => Vec::new(),
        (None, None) => image.cmd.clone(),
    };
    let mut argv: Vec<String> = entrypoint.iter().cloned().chain(cmd).collect();
    if argv.is_empty() {
        argv.push("/bin/sh".to_owned());
    }
    StartSpec {
        instance_id: record.id.to_string(),
        hostname: record.name.to_string(),
        machine_id: machine_id(&record.id),
        entropy: entropy::for_guest(),
        wall_clock_ns: wall_clock_ns(),
        argv,
        env: environment(record, image),
        workdir: image.working_dir.clone(),
        user: image.user.clone(),
        stop_signal: signal_number(&image.stop_signal).unwrap_or(SIGTERM),
        network: network(record, zone),
    }
}

/// Who a woken machine is. `new_machine` for a fork.
pub(super) fn identity(
    record: &InstanceRecord,
    image: &ImageRecord,
    zone: &str,
    new_machine: bool,
) -> Identity {
    Identity {
        instance_id: record.id.to_string(),
        hostname: record.name.to_string(),
        machine_id: machine_id(&record.id),
        entropy: entropy::for_guest(),
        wall_clock_ns: wall_clock_ns(),
        new_machine,
        post_fork: new_machine.then(|| hook(record, image)).flatten(),
        network: network(record, zone),
    }
}

/// The identity that goes with a start: for a machine that was started already.
pub(super) fn again(spec: StartSpec) -> Identity {
    Identity {
        instance_id: spec.instance_id,
        hostname: spec.hostname,
        machine_id: spec.machine_id,
        entropy: spec.entropy,
        wall_clock_ns: wall_clock_ns(),
        new_machine: false,
        post_fork: None,
        network: spec.network,
    }
}

/// How the guest is connected: the same in every slot, but for the MTU.
fn network(record: &InstanceRecord, zone: &str) -> Option<GuestNetwork> {
    use network::guest::{ADDRESS, GATEWAY, PREFIX};
    record.lease.map(|lease| GuestNetwork {
        address: ADDRESS,
        prefix: PREFIX,
        gateway: GATEWAY,
        mtu: lease.mtu,
        dns: vec![GATEWAY.into()],
        search: vec![zone.to_owned()],
    })
}

/// The hook of the request, else that of the image.
fn hook(record: &InstanceRecord, image: &ImageRecord) -> Option<PostFork> {
    let env = environment(record, image);
    if let Some(hook) = &record.spec.post_fork {
        return Some(PostFork {
            argv: hook.command.clone(),
            env,
            timeout_ms: hook.timeout_ms,
        });
    }
    image.labels.get(HOOK_LABEL).map(|line| PostFork {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
        env,
        timeout_ms: LABEL_HOOK_TIMEOUT_MS,
    })
}

/// The image's environment with the instance's over it.
fn environment(record: &InstanceRecord, image: &ImageRecord) -> Vec<(String, String)> {
    let mut env: BTreeMap<String, String> = image
        .env
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    env.extend(record.spec.env.clone());
    env.into_iter().collect()
}

/// The same machine always has the same id, and no two machines share one.
fn machine_id(id: &InstanceId) -> MachineId {
    let digest = Sha256::digest(id.as_str());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes
}

pub(super) fn wall_clock_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}

/// A signal by number or by its name with or without `SIG`, as images write it.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    // Linux numbers, the same on every architecture that coppice runs.
    const NAMES: [(&str, i32); 12] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ABRT", 6),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", SIGTERM),
        ("WINCH", 28),
        ("PWR", 30),
    ];
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset
            .parse::<i32>()
            .ok()
            .filter(|n| (0..=30).contains(n))
            .map(|n| 34 + n);
    }
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_as_images_write_them() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("QUIT", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("", None),
            ("SIGNOPE", None),
            ("0", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }

    #[test]
    fn machine_ids_follow_the_instance() {
        let one = entropy::instance_id();
        let other = entropy::instance_id();
        assert_eq!(machine_id(&one), machine_id(&one));
        assert_ne!(machine_id(&one), machine_id(&other));
    }
}
