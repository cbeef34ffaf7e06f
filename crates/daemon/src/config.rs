//! Configuration: flags over environment over file over defaults. Every key has a
//! default that works.

mod firecracker;
mod network;
mod pagers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use model::Compression;
use serde::Deserialize;

use crate::instances::{BootFiles, WarmPolicy};

pub use firecracker::{FirecrackerKeys, JailMode};
pub use network::{NetworkConfig, NetworkMode};
pub use pagers::{MemoryBackend, PagerConfig};

/// Where the file is looked for when no flag says so.
const DEFAULT_FILE: &str = "/etc/coppice/coppice.toml";
/// Where everything is kept.
const DEFAULT_DATA_DIR: &str = "/var/lib/coppice";
/// The port that the public SDKs use by default, on this host only.
const DEFAULT_LISTEN: &str = "127.0.0.1:4973";

/// One warm fork makes the next fork quick; more cost memory that most hosts miss.
const DEFAULT_WARM_FORKS: usize = 1;
/// Each costs a process and some 20 MiB.
const MAX_WARM_FORKS: usize = 64;
/// Longer than the pauses of a busy CI queue, shorter than a lunch break.
const DEFAULT_WARM_IDLE: Duration = Duration::from_secs(300);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which VMM runs instances that ask for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// Runs everywhere.
    Qemu,
    /// Needs KVM that runs Linux guests.
    Firecracker,
}

impl Hypervisor {
    /// Its name in requests and records.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
        }
    }
}

/// Which accelerator runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where it really runs a guest, else emulation.
    Auto,
    /// Emulation.
    Tcg,
    /// KVM; refuse to start without.
    Kvm,
}

/// Which machine guests see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Machine {
    /// The smallest and fastest.
    Microvm,
    /// For images that need PCI.
    Q35,
}

/// Keys as they may be given on the command line, in the environment or, under the
/// same names, in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Given {
    /// Directory of records, images and instances [default: /var/lib/coppice]
    #[arg(long, env = "COPPICE_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// TCP address of the API [default: 127.0.0.1:4973]
    #[arg(long, env = "COPPICE_LISTEN", global = true)]
    pub listen: Option<String>,
    /// Unix socket of the API, for its owner alone [default: DATA_DIR/coppiced.sock]
    #[arg(long, env = "COPPICE_SOCKET", global = true)]
    pub socket: Option<PathBuf>,
    /// Format of the daemon's log [default: text]
    #[arg(long, env = "COPPICE_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// What to log, such as info or daemon=debug [default: info]
    #[arg(long, env = "COPPICE_LOG", global = true)]
    pub log: Option<String>,
    /// QEMU to use [default: qemu-system-x86_64 from the PATH]
    #[arg(long, env = "COPPICE_QEMU", global = true)]
    pub qemu: Option<PathBuf>,
    /// VMM of instances that ask for none [default: qemu]
    #[arg(long, env = "COPPICE_HYPERVISOR", global = true)]
    pub hypervisor: Option<Hypervisor>,
    /// Firecracker to use [default: firecracker from the PATH]
    #[arg(long, env = "COPPICE_FIRECRACKER", global = true)]
    pub firecracker: Option<PathBuf>,
    /// Whether Firecracker's machines are jailed [default: auto, where coppiced is root and finds the jailer]
    #[arg(long, env = "COPPICE_JAIL", global = true)]
    pub jail: Option<JailMode>,
    /// Firecracker's jailer [default: jailer beside firecracker]
    #[arg(long, env = "COPPICE_JAILER", global = true)]
    pub jailer: Option<PathBuf>,
    /// User and group numbers of jailed machines, one for each, FIRST-LAST [default: 1879048192-1879052287]
    #[arg(long, env = "COPPICE_JAIL_UIDS", global = true)]
    pub jail_uids: Option<String>,
    /// Control group limits of each jailed machine, such as memory.max=2G, separated by commas [default: none]
    #[arg(long, env = "COPPICE_JAIL_CGROUPS", global = true)]
    pub jail_cgroups: Option<String>,
    /// Accelerator of guests under QEMU [default: auto]
    #[arg(long, env = "COPPICE_ACCELERATOR", global = true)]
    pub accelerator: Option<Accelerator>,
    /// Machine of guests under QEMU [default: microvm]
    #[arg(long, env = "COPPICE_MACHINE", global = true)]
    pub machine: Option<Machine>,
    /// Guest kernel [default: what setup installed]
    #[arg(long, env = "COPPICE_KERNEL", global = true)]
    pub kernel: Option<PathBuf>,
    /// The same kernel uncompressed (vmlinux), for Firecracker [default: what setup installed]
    #[arg(long, env = "COPPICE_ELF_KERNEL", global = true)]
    pub elf_kernel: Option<PathBuf>,
    /// Guest initrd with the agent [default: what setup installed]
    #[arg(long, env = "COPPICE_INITRD", global = true)]
    pub initrd: Option<PathBuf>,
    /// Group and user number that VMMs run as [default: the daemon's own]
    #[arg(long, env = "COPPICE_VMM_UID", global = true)]
    pub vmm_uid: Option<u32>,
    /// What memory images are written with where neither a request nor an instance says: off, zstd or zstd:LEVEL
    /// [default: off]
    #[arg(long, env = "COPPICE_SNAPSHOT_COMPRESSION", global = true)]
    pub snapshot_compression: Option<String>,
    /// Forks that each template in use keeps ready, 0 to 64 [default: 1]
    #[arg(long, env = "COPPICE_WARM_FORKS", global = true)]
    pub warm_forks: Option<usize>,
    /// Time without a fork after which they are ended, such as 90s [default: 5m]
    #[arg(long, env = "COPPICE_WARM_IDLE", global = true)]
    pub warm_idle: Option<String>,
    /// What the memory of forks comes from, where neither they nor their template say [default: auto]
    #[arg(long, env = "COPPICE_MEMORY_BACKEND", global = true)]
    pub memory_backend: Option<MemoryBackend>,
    /// Group and user number that pagers of memory run as [default: 1879052288 for root, else the daemon's own]
    #[arg(long, env = "COPPICE_PAGER_UID", global = true)]
    pub pager_uid: Option<u32>,
    /// How much a pager gives for one page that is missing; a power of two from 4KB to 2MB [default: 64KB]
    #[arg(long, env = "COPPICE_PAGER_BATCH", global = true)]
    pub pager_batch: Option<String>,
    /// Time in which another pager must have taken over from one that is lost, up to 1m; machines are killed that wait
    /// longer [default: 1s]
    #[arg(long, env = "COPPICE_PAGER_TAKEOVER", global = true)]
    pub pager_takeover: Option<String>,
    /// Time after which a fork on a pager gets all its memory, such as 30m; 0s for never [default: 10m]
    #[arg(long, env = "COPPICE_GRADUATE_AFTER", global = true)]
    pub graduate_after: Option<String>,
    /// How much of it in a second [default: 64MB]
    #[arg(long, env = "COPPICE_GRADUATE_RATE", global = true)]
    pub graduate_rate: Option<String>,
    /// Whether instances are connected [default: auto, where the host can]
    #[arg(long, env = "COPPICE_NETWORK", global = true)]
    pub network: Option<NetworkMode>,
    /// Addresses of instances, such as 10.208.0.0/16 [default: a block of 10.208.0.0/12 that is free]
    #[arg(long, env = "COPPICE_NETWORK_POOL", global = true)]
    pub network_pool: Option<String>,
    /// Network slots that are kept prepared [default: 32]
    #[arg(long, env = "COPPICE_NETWORK_SLOTS", global = true)]
    pub network_slots: Option<usize>,
    /// Addresses that ingress listens on, separated by commas [default: 0.0.0.0]
    #[arg(long, env = "COPPICE_INGRESS_BIND", global = true)]
    pub ingress_bind: Option<String>,
    /// Port of plain HTTP, for redirects to TLS [default: 80]
    #[arg(long, env = "COPPICE_INGRESS_HTTP_PORT", global = true)]
    pub ingress_http_port: Option<u16>,
    /// Directory of certificates, NAME.crt and NAME.key [default: DATA_DIR/certificates]
    #[arg(long, env = "COPPICE_CERTIFICATES", global = true)]
    pub certificates: Option<PathBuf>,
    /// Domain of instances' names [default: coppice.internal]
    #[arg(long, env = "COPPICE_DNS_ZONE", global = true)]
    pub dns_zone: Option<String>,
    /// Resolvers for other names, ADDRESS or ADDRESS:PORT separated by commas [default: the host's]
    #[arg(long, env = "COPPICE_DNS_UPSTREAMS", global = true)]
    pub dns_upstreams: Option<String>,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Directory of records, images and instances.
    pub data_dir: PathBuf,
    /// TCP address of the API.
    pub listen: String,
    /// Unix socket of the API.
    pub socket: PathBuf,
    /// Format of the daemon's log.
    pub log_format: LogFormat,
    /// What to log.
    pub log: String,
    /// QEMU; none = from the PATH.
    pub qemu: Option<PathBuf>,
    /// VMM of instances that ask for none.
    pub hypervisor: Hypervisor,
    /// Firecracker and its jails.
    pub firecracker: FirecrackerKeys,
    /// Accelerator of guests.
    pub accelerator: Accelerator,
    /// Machine of guests.
    pub machine: Machine,
    /// Kernel and initrd; none = what setup installed.
    pub boot: Option<BootFiles>,
    /// Who VMMs run as.
    pub vmm_uid: Option<u32>,
    /// What memory images are written with.
    pub compression: Compression,
    /// Forks that are prepared ahead.
    pub warm: WarmPolicy,
    /// How forks come by their memory.
    pub pagers: PagerConfig,
    /// How instances are connected.
    pub network: NetworkConfig,
}

impl Config {
    /// Puts the configuration together. `file` was named on the command line and must
    /// exist then; the default file may be missing.
    pub fn resolve(given: Given, file: Option<&Path>) -> Result<Self> {
        let from_file = match file {
            Some(path) => read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => read(Path::new(DEFAULT_FILE))?,
            None => Given::default(),
        };
        given.over(from_file).complete()
    }
}

fn read(path: &Path) -> Result<Given> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("in the configuration {}", path.display()))
}

impl Given {
    fn over(self, below: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(below.data_dir),
            listen: self.listen.or(below.listen),
            socket: self.socket.or(below.socket),
            log_format: self.log_format.or(below.log_format),
            log: self.log.or(below.log),
            qemu: self.qemu.or(below.qemu),
            hypervisor: self.hypervisor.or(below.hypervisor),
            firecracker: self.firecracker.or(below.firecracker),
            jail: self.jail.or(below.jail),
            jailer: self.jailer.or(below.jailer),
            jail_uids: self.jail_uids.or(below.jail_uids),
            jail_cgroups: self.jail_cgroups.or(below.jail_cgroups),
            accelerator: self.accelerator.or(below.accelerator),
            machine: self.machine.or(below.machine),
            kernel: self.kernel.or(below.kernel),
            elf_kernel: self.elf_kernel.or(below.elf_kernel),
            initrd: self.initrd.or(below.initrd),
            vmm_uid: self.vmm_uid.or(below.vmm_uid),
            snapshot_compression: self.snapshot_compression.or(below.snapshot_compression),
            warm_forks: self.warm_forks.or(below.warm_forks),
            warm_idle: self.warm_idle.or(below.warm_idle),
            memory_backend: self.memory_backend.or(below.memory_backend),
            pager_uid: self.pager_uid.or(below.pager_uid),
            pager_batch: self.pager_batch.or(below.pager_batch),
            pager_takeover: self.pager_takeover.or(below.pager_takeover),
            graduate_after: self.graduate_after.or(below.graduate_after),
            graduate_rate: self.graduate_rate.or(below.graduate_rate),
            network: self.network.or(below.network),
            network_pool: self.network_pool.or(below.network_pool),
            network_slots: self.network_slots.or(below.network_slots),
            ingress_bind: self.ingress_bind.or(below.ingress_bind),
            ingress_http_port: self.ingress_http_port.or(below.ingress_http_port),
            certificates: self.certificates.or(below.certificates),
            dns_zone: self.dns_zone.or(below.dns_zone),
            dns_upstreams: self.dns_upstreams.or(below.dns_upstreams),
        }
    }

    fn complete(self) -> Result<Config> {
        let data_dir = self
            .data_dir
            .clone()
            .unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let data_dir = absolute(data_dir)?;
        let network = NetworkConfig::of(&self, &data_dir)?;
        let firecracker = FirecrackerKeys::of(&self)?;
        let pagers = PagerConfig::of(&self)?;
        let boot = match (self.kernel, self.initrd) {
            (Some(kernel), Some(initrd)) => Some(BootFiles {
                kernel: absolute(kernel)?,
                elf_kernel: self.elf_kernel.map(absolute).transpose()?,
                initrd: absolute(initrd)?,
            }),
            (None, None) if self.elf_kernel.is_none() => None,
            _ => anyhow::bail!("kernel and initrd belong together: give both or neither"),
        };
        let compression = match self.snapshot_compression.as_deref() {
            Some(text) => text
                .parse()
                .with_context(|| format!("snapshot_compression {text:?}"))?,
            None => Compression::Off,
        };
        let warm = warm_policy(self.warm_forks, self.warm_idle.as_deref())?;
        Ok(Config {
            socket: match self.socket {
                Some(socket) => absolute(socket)?,
                None => data_dir.join("coppiced.sock"),
            },
            data_dir,
            listen: self.listen.unwrap_or_else(|| DEFAULT_LISTEN.to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            qemu: self.qemu.map(program).transpose()?,
            hypervisor: self.hypervisor.unwrap_or(Hypervisor::Qemu),
            firecracker,
            accelerator: self.accelerator.unwrap_or(Accelerator::Auto),
            machine: self.machine.unwrap_or(Machine::Microvm),
            boot,
            vmm_uid: self.vmm_uid,
            compression,
            warm,
            pagers,
            network,
        })
    }
}

/// VMMs do not start in the directory that the daemon was started in.
fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("{} is no path", path.display()))
}

/// A bare name is looked for in the PATH.
fn program(path: PathBuf) -> Result<PathBuf> {
    if path.components().count() > 1 {
        absolute(path)
    } else {
        Ok(path)
    }
}

fn warm_policy(forks: Option<usize>, idle: Option<&str>) -> Result<WarmPolicy> {
    let forks = forks.unwrap_or(DEFAULT_WARM_FORKS);
    if forks > MAX_WARM_FORKS {
        anyhow::bail!("warm_forks is {forks}; a template keeps at most {MAX_WARM_FORKS} ready");
    }
    let idle = match idle {
        Some(text) => model::parse_duration(text).with_context(|| format!("warm_idle {text:?}"))?,
        None => DEFAULT_WARM_IDLE,
    };
    Ok(WarmPolicy { forks, idle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("coppice.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nlog_format = \"json\"\n").unwrap();
        let given = Given {
            listen: Some("127.0.0.1:2".to_owned()),
            data_dir: Some("/data".into()),
            ..Given::default()
        };
        let config = Config::resolve(given, Some(&file)).unwrap();
        assert_eq!(config.listen, "127.0.0.1:2");
        assert_eq!(config.log_format, LogFormat::Json);
        assert_eq!(config.socket, Path::new("/data/coppiced.sock"));
        assert_eq!(config.accelerator, Accelerator::Auto);
    }

    #[test]
    fn memory_images_are_plain_unless_the_configuration_says_otherwise() {
        let compression = |text: Option<&str>| {
            let given = Given {
                snapshot_compression: text.map(str::to_owned),
                ..Given::default()
            };
            given.complete().map(|config| config.compression)
        };
        assert_eq!(compression(None).unwrap(), Compression::Off);
        let zstd = Compression::Zstd { level: 3 };
        assert_eq!(compression(Some("zstd:3")).unwrap(), zstd);
        let refused = format!("{:#}", compression(Some("lz4")).unwrap_err());
        assert!(
            refused.contains("snapshot_compression \"lz4\""),
            "{refused}"
        );
        assert!(refused.contains("zstd:LEVEL"), "{refused}");
    }

    #[test]
    fn paths_hold_wherever_a_machine_is_started() {
        let given = Given {
            data_dir: Some("data".into()),
            socket: Some("s".into()),
            kernel: Some("boot/vmlinuz".into()),
            elf_kernel: Some("boot/vmlinux".into()),
            initrd: Some("boot/initrd".into()),
            qemu: Some("./qemu".into()),
            ..Given::default()
        };
        let config = given.complete().unwrap();
        let boot = config.boot.unwrap();
        let qemu = config.qemu.unwrap();
        let elf = boot.elf_kernel.unwrap();
        for path in [
            config.data_dir,
            config.socket,
            boot.kernel,
            elf,
            boot.initrd,
            qemu,
        ] {
            assert!(path.is_absolute(), "{}", path.display());
        }
        let given = Given {
            qemu: Some("qemu-system-x86_64".into()),
            ..Given::default()
        };
        let qemu = given.complete().unwrap().qemu.unwrap();
        assert_eq!(qemu, Path::new("qemu-system-x86_64"), "from the PATH");
    }

    #[test]
    fn unknown_keys_and_half_pairs_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("coppice.toml");
        std::fs::write(&file, "listne = \"x\"\n").unwrap();
        let error = Config::resolve(Given::default(), Some(&file)).unwrap_err();
        assert!(format!("{error:#}").contains("listne"), "{error:#}");
        let half = Given {
            kernel: Some("/boot/vmlinuz".into()),
            ..Given::default()
        };
        assert!(Config::resolve(half, Some(&dir.path().join("missing"))).is_err());
        std::fs::write(&file, "kernel = \"/boot/vmlinuz\"\n").unwrap();
        assert!(Config::resolve(Given::default(), Some(&file)).is_err());
    }
}
