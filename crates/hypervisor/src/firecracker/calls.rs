//! The calls that make a machine, as pure data.

use std::path::Path;

use serde_json::{Value, json};

use super::layout::{
    DISK, GUEST_CID, NIC, PAGER, RAM_FD, ROOT, SAVED_RAM, SAVED_RAM_FD, STATE, STATE_FD, VSOCK,
};
use super::version::FirecrackerVersion;
use crate::machine::STATE_PART;
use crate::{MachineSpec, Nic, Wake};

/// Words for every guest.
///
/// - The serial port is the console, and the only one of its kind: three others are not looked for.
/// - A reset by the keyboard controller is the one thing that Firecracker ends for, so a panic and the agent's power-off
///   are made one. Of the controller nothing else is there, and no time is spent on asking it.
/// - There is no PCI bus.
/// - The clock is KVM's: the host corrects it when a machine continues, be it on another processor. The counter of the
///   processor would be taken where it is said to be steady, and corrected by nobody.
/// - Random bytes are there from the first moment; the agent adds the host's on top.
/// - The agent listens on vsock.
const CMDLINE: &str = "console=ttyS0 8250.nr_uarts=1 reboot=k panic=-1 \
    i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd pci=off clocksource=kvm-clock quiet random.trust_cpu=on \
    coppice.agent=vsock coppice.poweroff=reset";

/// A request to the API.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) body: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Put,
    Patch,
}

impl Method {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Patch => "PATCH",
        }
    }
}

/// Where Firecracker finds what is not in its working directory under a name of the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In the host's file system, with descriptors from the launcher.
    Host,
    /// In a jail. The jailer closes all descriptors but the standard ones, so RAM of the image is standard input.
    Jail,
}

impl Place {
    fn ram(self) -> String {
        match self {
            Self::Host => descriptor(RAM_FD),
            Self::Jail => descriptor(0),
        }
    }

    fn saved_ram(self) -> String {
        match self {
            Self::Host => descriptor(SAVED_RAM_FD),
            Self::Jail => SAVED_RAM.to_owned(),
        }
    }

    fn state(self) -> String {
        match self {
            Self::Host => descriptor(STATE_FD),
            Self::Jail => STATE.to_owned(),
        }
    }
}

/// Where restored RAM comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RamFrom {
    /// The RAM descriptor is mapped.
    Descriptor,
    /// The pager behind the link answers faults.
    Pager,
}

fn put(path: &'static str, body: Value) -> Call {
    Call {
        method: Method::Put,
        path,
        body,
    }
}

/// Kernel command line with the caller's words at the end.
pub(super) fn cmdline(extra: &str) -> String {
    if extra.is_empty() {
        CMDLINE.to_owned()
    } else {
        format!("{CMDLINE} {extra}")
    }
}

/// From a fresh process to a machine that boots. The order is the order of devices, and so part of the layout.
pub(super) fn boot(
    machine: &MachineSpec,
    kernel: &Path,
    initrd: &Path,
    cmdline: &str,
    nic: Option<&Nic>,
) -> Vec<Call> {
    let drive = |id: &'static str, read_only: bool| {
        json!({
            "drive_id": id,
            "path_on_host": id,
            "is_root_device": id == ROOT,
            "is_read_only": read_only,
            // A flush of the guest reaches the host's disk.
            "cache_type": "Writeback",
        })
    };
    let mut calls = vec![
        put(
            "/machine-config",
            json!({
                "vcpu_count": machine.vcpus,
                "mem_size_mib": machine.ram_bytes >> 20,
                // Without it only all of RAM can be saved, holes included.
                "track_dirty_pages": true,
            }),
        ),
        put(
            "/boot-source",
            json!({
                "kernel_image_path": kernel,
                "initrd_path": initrd,
                "boot_args": cmdline,
            }),
        ),
        put("/drives/root", drive(ROOT, true)),
        put("/drives/disk", drive(DISK, false)),
        put(
            "/vsock",
            json!({ "guest_cid": GUEST_CID, "uds_path": VSOCK }),
        ),
        put("/entropy", json!({})),
    ];
    if let Some(nic) = nic {
        calls.push(put(
            "/network-interfaces/eth0",
            json!({ "iface_id": NIC, "guest_mac": nic.mac_text(), "host_dev_name": nic.tap }),
        ));
    }
    calls.push(put("/actions", json!({ "action_type": "InstanceStart" })));
    calls
}

/// From a fresh process to a machine that continues. It is one call: one that fails ends the process.
pub(super) fn load(
    place: Place,
    version: FirecrackerVersion,
    ram: RamFrom,
    wake: Wake,
    nic: Option<&Nic>,
) -> Call {
    let backend = match ram {
        RamFrom::Descriptor => {
            json!({ "backend_type": "File", "backend_path": place.ram() })
        }
        RamFrom::Pager => json!({ "backend_type": "Uffd", "backend_path": PAGER }),
    };
    let mut body = json!({
        "snapshot_path": place.state(),
        "mem_backend": backend,
        "resume_vm": wake == Wake::Running,
    });
    body[version.diff_option()] = json!(true);
    if let Some(nic) = nic {
        body["network_overrides"] = json!([{ "iface_id": NIC, "host_dev_name": nic.tap }]);
    }
    put("/snapshot/load", body)
}

/// Which pages are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// Those written since the last time, over what was saved then.
    Changed,
    /// All of RAM.
    All,
}

/// Saves state and pages.
pub(super) fn save(place: Place, pages: Pages) -> Call {
    let kind = match pages {
        Pages::Changed => "Diff",
        Pages::All => "Full",
    };
    put(
        "/snapshot/create",
        json!({
            "snapshot_type": kind,
            "snapshot_path": STATE_PART,
            "mem_file_path": place.saved_ram(),
        }),
    )
}

pub(super) fn pause() -> Call {
    state("Paused")
}

pub(super) fn resume() -> Call {
    state("Resumed")
}

fn state(state: &str) -> Call {
    Call {
        method: Method::Patch,
        path: "/vm",
        body: json!({ "state": state }),
    }
}

fn descriptor(fd: i32) -> String {
    format!("/proc/self/fd/{fd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> Nic {
        Nic {
            netns: "/run/netns/a".into(),
            tap: "tap0".into(),
            mac: [2, 0, 0, 0, 0, 1],
        }
    }

    #[test]
    fn a_boot_tracks_pages_and_uses_relative_paths() {
        let machine = MachineSpec {
            vcpus: 2,
            ram_bytes: 128 << 20,
        };
        let (kernel, initrd) = (Path::new("/boot/k"), Path::new("/boot/i"));
        let calls = boot(&machine, kernel, initrd, &cmdline("debug"), Some(&nic()));
        let body = |path: &str| &calls.iter().find(|call| call.path == path).unwrap().body;
        assert_eq!(body("/machine-config")["mem_size_mib"], 128);
        assert_eq!(body("/machine-config")["track_dirty_pages"], true);
        assert_eq!(body("/drives/disk")["path_on_host"], "disk");
        assert_eq!(body("/drives/root")["is_read_only"], true);
        assert_eq!(body("/vsock")["uds_path"], "vsock");
        assert_eq!(
            body("/network-interfaces/eth0")["guest_mac"],
            "02:00:00:00:00:01"
        );
        assert!(
            body("/boot-source")["boot_args"]
                .as_str()
                .unwrap()
                .ends_with(" debug")
        );
        assert_eq!(calls.last().unwrap().path, "/actions");
        let alone = boot(&machine, kernel, initrd, "", None);
        assert_eq!(alone.len(), calls.len() - 1, "no card, no call");
    }

    /// Unknown fields are refused by Firecracker, so the option must have the name of its version.
    #[test]
    fn a_load_names_its_backend_card_and_option() {
        let version = |text| FirecrackerVersion::parse(text).unwrap();
        let old = version("Firecracker v1.12.1");
        let call = load(Place::Host, old, RamFrom::Descriptor, Wake::Paused, None);
        assert_eq!(call.body["mem_backend"]["backend_type"], "File");
        assert_eq!(call.body["enable_diff_snapshots"], true);
        assert_eq!(call.body["resume_vm"], false);
        assert_eq!(call.body["network_overrides"], Value::Null);
        let new = version("Firecracker v1.13.0");
        let call = load(
            Place::Jail,
            new,
            RamFrom::Pager,
            Wake::Running,
            Some(&nic()),
        );
        assert_eq!(call.body["mem_backend"]["backend_path"], "pager");
        assert_eq!(call.body["snapshot_path"], "state");
        assert_eq!(call.body["track_dirty_pages"], true);
        assert_eq!(call.body["enable_diff_snapshots"], Value::Null);
        assert_eq!(call.body["network_overrides"][0]["host_dev_name"], "tap0");
    }
}
