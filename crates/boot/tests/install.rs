//! Installing and opening sets, with a kernel of a few bytes that has every module built in.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
use std::fs;
use std::path::{Path, PathBuf};

use boot::{Assets, AssetsId, BootError, KernelSource, Step};

const MODULES: [&str; 9] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio-rng",
    "virtio_net",
    "erofs",
    "ext4",
    "overlay",
];

struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("lib/modules/6.0-test");
        fs::create_dir_all(modules.join("kernel")).unwrap();
        let builtin: String = MODULES.iter().map(|m| format!("kernel/{m}.ko\n")).collect();
        fs::write(modules.join("modules.builtin"), builtin).unwrap();
        fs::write(dir.path().join("vmlinuz"), "kernel").unwrap();
        fs::write(dir.path().join("agent"), "agent").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn assets_dir(&self) -> PathBuf {
        self.path("assets")
    }

    fn install(&self) -> (Assets, Vec<Step>) {
        let source = KernelSource::Files {
            kernel: self.path("vmlinuz"),
            modules_dir: self.path("lib/modules/6.0-test"),
        };
        let mut steps = Vec::new();
        let assets = Assets::install(
            &self.assets_dir(),
            &source,
            &self.path("agent"),
            &mut |step| steps.push(step),
        );
        (assets.unwrap(), steps)
    }
}

fn is_writable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o222 != 0
}

#[test]
fn what_was_installed_is_found_again() {
    let host = Host::new();
    let (installed, _) = host.install();
    let opened = Assets::open(&host.assets_dir()).unwrap();
    assert_eq!(opened, installed);
    assert_eq!(opened.kernel_version, "6.0-test");
    assert_eq!(fs::read(&opened.kernel).unwrap(), b"kernel");
    assert!(!is_writable(&opened.kernel) && !is_writable(&opened.initrd));
}

#[test]
fn a_second_installation_of_the_same_parts_does_nothing() {
    let host = Host::new();
    let (first, _) = host.install();
    let (second, steps) = host.install();
    assert_eq!(second, first);
    assert_eq!(steps, [Step::AlreadyInstalled]);
}

#[test]
fn a_new_agent_makes_a_new_set_and_leaves_the_old_one_in_place() {
    let host = Host::new();
    let (old, _) = host.install();
    fs::write(host.path("agent"), "another agent").unwrap();
    let (new, _) = host.install();
    assert_ne!(new.id, old.id);
    assert_eq!(Assets::open(&host.assets_dir()).unwrap(), new);
    let id = AssetsId::parse(&old.id.to_string()).unwrap();
    assert_eq!(Assets::open_set(&host.assets_dir(), &id).unwrap(), old);
}

#[test]
fn the_same_parts_give_the_same_set_anywhere() {
    assert_eq!(Host::new().install().0.id, Host::new().install().0.id);
}

#[test]
fn a_changed_file_is_refused_and_repaired_by_the_next_installation() {
    let host = Host::new();
    let (assets, _) = host.install();
    fs::remove_file(&assets.initrd).unwrap();
    fs::write(&assets.initrd, vec![0; 100]).unwrap();
    let error = Assets::open(&host.assets_dir()).unwrap_err();
    assert!(
        matches!(&error, BootError::Changed { path, .. } if *path == assets.initrd),
        "{error}"
    );
    assert_eq!(host.install().0, assets);
    Assets::open(&host.assets_dir()).unwrap();
}

#[test]
fn other_time_stamps_alone_are_no_change() {
    let host = Host::new();
    let (assets, _) = host.install();
    let bytes = fs::read(&assets.kernel).unwrap();
    fs::remove_file(&assets.kernel).unwrap();
    fs::write(&assets.kernel, bytes).unwrap();
    assert_eq!(Assets::open(&host.assets_dir()).unwrap(), assets);
}

#[test]
fn leftovers_of_a_crashed_installation_are_removed() {
    let host = Host::new();
    let leftover = host.assets_dir().join(".scratch-crashed");
    fs::create_dir_all(leftover.join("boot")).unwrap();
    host.install();
    assert!(!leftover.exists());
}

#[test]
fn a_directory_without_assets_says_what_to_do() {
    let host = Host::new();
    let error = Assets::open(&host.assets_dir()).unwrap_err();
    assert!(matches!(error, BootError::NotInstalled { .. }));
    assert!(error.to_string().contains("coppice setup"), "{error}");
}

/// The smallest file that VMMs would boot: a processor that finds zeros.
fn elf_kernel() -> Vec<u8> {
    const BASE: u64 = 16 << 20;
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    bytes.extend([BASE, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0u16, 0, 64, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    bytes.extend([1u32, 7].map(u32::to_le_bytes).concat());
    bytes.extend([120, BASE, BASE, 64, 64, 4].map(u64::to_le_bytes).concat());
    bytes.extend([0; 64]);
    bytes
}

#[test]
fn a_set_has_the_kernel_uncompressed_as_well() {
    let host = Host::new();
    fs::write(host.path("vmlinuz"), elf_kernel()).unwrap();
    let (assets, steps) = host.install();
    let vmlinux = assets.vmlinux().unwrap();
    assert_eq!(fs::read(vmlinux).unwrap(), elf_kernel());
    assert!(!is_writable(vmlinux));
    assert!(!steps.iter().any(|step| matches!(step, Step::NoVmlinux(_))));
    assert_eq!(Assets::open(&host.assets_dir()).unwrap(), assets);
    fs::remove_file(vmlinux).unwrap();
    fs::write(vmlinux, "another kernel").unwrap();
    let error = Assets::open(&host.assets_dir()).unwrap_err();
    assert!(matches!(error, BootError::Changed { .. }), "{error}");
}

/// QEMU boots kernels that nothing can be unpacked from.
#[test]
fn a_kernel_that_cannot_be_unpacked_makes_a_set_that_says_so() {
    let host = Host::new();
    let (assets, steps) = host.install();
    let error = assets.vmlinux().unwrap_err();
    assert!(
        error.to_string().contains("neither a bzImage nor an ELF"),
        "{error}"
    );
    assert!(steps.iter().any(|step| matches!(step, Step::NoVmlinux(_))));
    assert_eq!(Assets::open(&host.assets_dir()).unwrap(), assets);
}

/// As version 0.1 wrote them: no word of an uncompressed kernel.
#[test]
fn a_set_of_an_older_version_opens_and_the_next_installation_completes_it() {
    let host = Host::new();
    fs::write(host.path("vmlinuz"), elf_kernel()).unwrap();
    let (assets, _) = host.install();
    let record = host
        .assets_dir()
        .join(assets.id.to_string())
        .join("assets.json");
    let text = fs::read(&record).unwrap();
    let mut old: serde_json::Value = serde_json::from_slice(&text).unwrap();
    old.as_object_mut().unwrap().remove("vmlinux").unwrap();
    let recipe = old["recipe"].as_str().unwrap().replacen('2', "1", 1);
    old["recipe"] = recipe.into();
    fs::remove_file(&record).unwrap();
    fs::write(&record, old.to_string()).unwrap();
    fs::remove_file(assets.vmlinux().unwrap()).unwrap();

    let opened = Assets::open(&host.assets_dir()).unwrap();
    assert_eq!(opened.kernel, assets.kernel);
    let error = opened.vmlinux().unwrap_err();
    assert!(error.to_string().contains("coppice setup"), "{error}");

    let (completed, _) = host.install();
    assert_eq!(
        fs::read(completed.vmlinux().unwrap()).unwrap(),
        elf_kernel()
    );
}
