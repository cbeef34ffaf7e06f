//! QEMU's command line, as a pure function of what the machine is.
//!
//! Device state names devices by their place, so places are fixed: a saved machine loads only into one with the
//! same devices in the same places. Change anything the guest can see, and [`LAYOUT`] must change with it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::config::MachineChoice;
use super::kvm::Accel;
use crate::{DiskFile, DiskFormat, Nic};

/// Revision of the devices and their places; part of the machine's name in manifests.
const LAYOUT: u32 = 2;

/// Descriptors that the launcher gives to QEMU. Far above those that the launcher itself is given.
pub(super) const RAM_FD: i32 = 30;
pub(super) const STATE_FD: i32 = 31;
pub(super) const QMP_FD: i32 = 32;
pub(super) const AGENT_FD: i32 = 33;
pub(super) const TAP_FD: i32 = 34;

/// Translation cache of TCG in MiB: less makes busy guests slow, more brings nothing.
const TB_CACHE_MIB: u32 = 32;

/// The model of machine, the same for all machines of a driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) machine: MachineChoice,
    pub(super) accel: Accel,
    /// Value of `-cpu`.
    pub(super) cpu: &'static str,
    /// First number of QEMU's version.
    pub(super) major: u32,
}

/// One machine.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) vcpus: u32,
    pub(super) ram_bytes: u64,
    pub(super) ram: RamMap,
    pub(super) start: Start,
    pub(super) root: PathBuf,
    pub(super) disk: Vec<DiskFile>,
    pub(super) console: PathBuf,
    pub(super) app: PathBuf,
    pub(super) nic: Option<Nic>,
}

/// How the RAM descriptor is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RamMap {
    /// The memfd belongs to this machine.
    Own,
    /// The memfd is sealed and shared; writes go to private copies.
    CopyOnWrite,
}

/// How the machine comes to life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    /// Boots a kernel.
    Boot {
        kernel: PathBuf,
        initrd: PathBuf,
        cmdline: String,
    },
    /// Loads the state descriptor and runs on.
    Load,
    /// Waits with its CPUs stopped until it is told to load.
    LoadLater,
}

impl Model {
    /// Name for manifests.
    pub(super) fn machine_name(&self) -> String {
        let name = match self.machine {
            MachineChoice::Microvm => "microvm",
            MachineChoice::Q35 => "q35",
        };
        format!("{name}/{LAYOUT}")
    }

    /// All arguments for `setup`.
    pub(super) fn arguments(&self, setup: &Setup) -> Vec<String> {
        let mut words = Words::default();
        words.add([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-no-shutdown",
        ]);
        words.pair("-name", &setup.name);
        words.pair(
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        );
        words.pair("-accel", &self.accel_value(setup.vcpus));
        words.pair("-cpu", self.cpu);
        words.pair("-smp", &setup.vcpus.to_string());
        words.pair("-m", &format!("{}B", setup.ram_bytes));
        self.machine(setup, &mut words);
        self.start(setup, &mut words);
        words.pair(
            "-chardev",
            &format!("socket,id=qmp,fd={QMP_FD},server=on,wait=off"),
        );
        words.pair("-mon", "chardev=qmp,mode=control");
        words.pair(
            "-chardev",
            &format!("file,id=console,path={},append=on", escape(&setup.console)),
        );
        words.pair("-serial", "chardev:console");
        self.devices(setup, &mut words);
        words.0
    }

    fn accel_value(&self, vcpus: u32) -> String {
        match self.accel {
            Accel::Tcg if vcpus == 1 => format!("tcg,thread=single,tb-size={TB_CACHE_MIB}"),
            Accel::Tcg => format!("tcg,thread=multi,tb-size={TB_CACHE_MIB}"),
            Accel::Kvm => "kvm".to_owned(),
        }
    }

    fn machine(&self, setup: &Setup, words: &mut Words) {
        let map = match setup.ram {
            RamMap::Own => "share=on",
            RamMap::CopyOnWrite => "share=off",
        };
        let size = setup.ram_bytes;
        words.pair(
            "-object",
            &format!(
                "memory-backend-file,id=ram,size={size}B,mem-path=/proc/self/fd/{RAM_FD},{map}"
            ),
        );
        let mut machine = match self.machine {
            MachineChoice::Microvm => "microvm,acpi=on,pcie=off,rtc=on,isa-serial=on".to_owned(),
            MachineChoice::Q35 => "q35,smm=off".to_owned(),
        };
        // Without them a TCG guest has no clock to calibrate with; under KVM it does not need one.
        if self.accel == Accel::Kvm && self.machine == MachineChoice::Microvm {
            machine.push_str(",pit=off,pic=off");
        }
        words.pair(
            "-machine",
            &format!("{machine},memory-backend=ram,suppress-vmdesc=on"),
        );
        match self.machine {
            MachineChoice::Microvm => {
                words.pair("-global", "virtio-mmio.force-legacy=false");
                // Later versions look for a firmware that distributions do not ship and fall back to a slow one.
                if self.major >= 8 {
                    words.pair("-bios", "qboot.rom");
                }
            }
            MachineChoice::Q35 => words.pair("-vga", "none"),
        }
    }

    fn start(&self, setup: &Setup, words: &mut Words) {
        match &setup.start {
            Start::Boot {
                kernel,
                initrd,
                cmdline,
            } => {
                words.pair("-kernel", &kernel.to_string_lossy());
                words.pair("-initrd", &initrd.to_string_lossy());
                words.pair("-append", cmdline);
                return;
            }
            Start::Load => words.pair("-incoming", &format!("fd:{STATE_FD}")),
            Start::LoadLater => {
                words.add(["-S"]);
                words.pair("-incoming", "defer");
            }
        }
        // Device state that was saved without RAM has no section for the configuration.
        words.pair("-global", "migration.send-configuration=off");
        // The card's place in its network did not change, so nobody needs to hear of it.
        words.pair("-global", "migration.announce-rounds=0");
    }

    fn devices(&self, setup: &Setup, words: &mut Words) {
        let mut root = json!({"driver": "file", "filename": setup.root, "node-name": "root"});
        read_only(&mut root);
        words.json("-blockdev", &root);
        self.device(words, "blk", 0, "drive=root,id=vda,serial=root");
        let top = disk_chain(&setup.disk, words);
        self.device(words, "blk", 1, &format!("drive={top},id=vdb,serial=disk"));
        self.device(words, "serial", 2, "id=ports");
        words.pair(
            "-chardev",
            &format!("socket,id=agent,fd={AGENT_FD},server=on,wait=off"),
        );
        words.pair(
            "-device",
            "virtserialport,bus=ports.0,chardev=agent,name=coppice.agent,nr=1",
        );
        words.pair(
            "-chardev",
            &format!("file,id=app,path={},append=on", escape(&setup.app)),
        );
        words.pair(
            "-device",
            "virtserialport,bus=ports.0,chardev=app,name=coppice.log,nr=2",
        );
        words.pair("-object", "rng-random,id=random,filename=/dev/urandom");
        self.device(words, "rng", 3, "rng=random,id=rng");
        if let Some(nic) = &setup.nic {
            self.nic(nic, words);
        }
    }

    /// A card on the TAP device that the launcher opened, in the last place. What the device can do is fixed by the
    /// header its frames carry, so it is the same for a machine and for all its forks.
    fn nic(&self, nic: &Nic, words: &mut Words) {
        words.pair("-netdev", &format!("tap,id=net,fd={TAP_FD},vhost=off"));
        let mut properties = format!(
            "netdev=net,id=nic,mac={},guest_announce=off",
            nic.mac_text()
        );
        if self.machine == MachineChoice::Q35 {
            // Nothing boots from the network.
            properties.push_str(",rombar=0,romfile=");
        }
        self.device(words, "net", 4, &properties);
    }

    /// A virtio device in its place. On microvm the first transport shares its interrupt with the platform and
    /// does not deliver (seen with 7.2), on q35 the first slots are taken; so places start at 1 and at 3.
    fn device(&self, words: &mut Words, kind: &str, place: u32, properties: &str) {
        words.pair(
            "-device",
            &match self.machine {
                MachineChoice::Microvm => format!(
                    "virtio-{kind}-device,bus=virtio-mmio-bus.{},{properties}",
                    place + 1
                ),
                MachineChoice::Q35 => format!(
                    "virtio-{kind}-pci-non-transitional,addr={:#x},{properties}",
                    place + 3
                ),
            },
        );
    }
}

/// Adds the block nodes of a chain, base first, and returns the name of the topmost.
fn disk_chain(disk: &[DiskFile], words: &mut Words) -> String {
    let mut below: Option<String> = None;
    for (position, file) in disk.iter().enumerate() {
        let (file_node, node) = (format!("disk{position}f"), format!("disk{position}"));
        let mut protocol = json!({"driver": "file", "filename": file.path, "node-name": file_node, "discard": "unmap"});
        let mut format = json!({"driver": driver_name(file.format), "file": file_node, "node-name": node, "discard": "unmap"});
        if position + 1 < disk.len() {
            read_only(&mut protocol);
            format["read-only"] = json!(true);
        }
        if file.format == DiskFormat::Qcow2 {
            // Names in the header are never followed; the chain is what is said here.
            format["backing"] = below.map_or(Value::Null, Value::String);
        }
        words.json("-blockdev", &protocol);
        words.json("-blockdev", &format);
        below = Some(node);
    }
    below.unwrap_or_default()
}

fn driver_name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    }
}

/// Files that are never written need no lock, and many machines share them.
fn read_only(node: &mut Value) {
    node["read-only"] = json!(true);
    node["locking"] = json!("off");
}

/// In QEMU's key=value lists a comma in a value is doubled.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[derive(Default)]
struct Words(Vec<String>);

impl Words {
    fn add<const N: usize>(&mut self, words: [&str; N]) {
        self.0.extend(words.map(str::to_owned));
    }

    fn pair(&mut self, option: &str, value: &str) {
        self.add([option, value]);
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.pair(option, &value.to_string());
    }
}

#[cfg(test)]
mod tests;
