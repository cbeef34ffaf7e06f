//! Which kernel modules a guest needs, in the order in which they must be loaded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::modinfo::{self, ModInfo};
use crate::{BootError, files};

/// What guests can do without: a kernel may be built without it. `tcp_diag` lets a fork abort the
/// connections of the machine it was made of.
const WELCOME: [&str; 1] = ["tcp_diag"];

/// What guests need whose host speaks by vsock, and others do not load: a kernel for QEMU alone may be
/// built without it.
const VSOCK: [&str; 1] = ["vmw_vsock_virtio_transport"];

/// Drivers and file systems of every guest. Transports come first so that devices are found while the
/// rest is still being loaded. What is built into the kernel is left out later.
const WANTED: [&str; 9] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "virtio_rng",
    "virtio_net",
    "erofs",
    "ext4",
    "overlay",
];

/// An uncompressed kernel module.
#[derive(Debug)]
pub struct Module {
    /// File name in the initrd, such as `virtio_blk.ko`.
    pub file_name: String,
    /// The ELF object.
    pub bytes: Vec<u8>,
}

/// The modules of an initrd, each after the ones it depends on.
pub(crate) struct Modules {
    /// What every guest loads.
    pub common: Vec<Module>,
    /// What a guest loads behind that when its host speaks by vsock.
    pub vsock: Vec<Module>,
}

/// The module tree of one kernel, `lib/modules/<release>`.
#[derive(Debug)]
pub struct ModuleTree {
    kernel_version: String,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Lists the tree under `dir`. The release is the directory's name.
    ///
    /// # Errors
    /// [`BootError::ModulesMissing`] if it is no such tree.
    pub fn open(dir: &Path) -> Result<Self, BootError> {
        let builtin_list = dir.join("modules.builtin");
        if !builtin_list.is_file() {
            return Err(BootError::ModulesMissing { path: dir.into() });
        }
        let text = files::read(&builtin_list)?;
        let builtin = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|line| module_name(Path::new(line)))
            .collect();
        let mut found = BTreeMap::new();
        collect(&dir.join("kernel"), &mut found)?;
        let kernel_version = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Self {
            kernel_version,
            files: found,
            builtin,
        })
    }

    /// Release of the kernel the modules are for, such as `6.1.0-13-cloud-amd64`.
    pub(crate) fn kernel_version(&self) -> &str {
        &self.kernel_version
    }

    /// Reads the wanted modules and all they need.
    pub(crate) fn load_wanted(&self) -> Result<Modules, BootError> {
        let mut order = LoadOrder::default();
        for name in WANTED {
            self.visit(name, &mut order)?;
        }
        self.visit_present(&WELCOME, &mut order)?;
        let common = std::mem::take(&mut order.modules);
        self.visit_present(&VSOCK, &mut order)?;
        let vsock = order.modules;
        Ok(Modules { common, vsock })
    }

    /// Reads modules and all they need, each after those. What is built into the kernel is left out.
    ///
    /// # Errors
    /// [`BootError::ModuleMissing`] for the first one that this kernel has not.
    pub fn load(&self, names: &[&str]) -> Result<Vec<Module>, BootError> {
        let mut order = LoadOrder::default();
        names
            .iter()
            .try_for_each(|name| self.visit(name, &mut order))?;
        Ok(order.modules)
    }

    fn visit_present(&self, names: &[&str], order: &mut LoadOrder) -> Result<(), BootError> {
        names
            .iter()
            .filter(|name| self.files.contains_key(**name))
            .try_for_each(|name| self.visit(name, order))
    }

    fn visit(&self, name: &str, order: &mut LoadOrder) -> Result<(), BootError> {
        if self.builtin.contains(name) || order.done.contains(name) {
            return Ok(());
        }
        if !order.open.insert(name.to_owned()) {
            return Err(BootError::ModuleCycle {
                module: name.into(),
            });
        }
        let (bytes, info) = self.read(name)?;
        for dependency in &info.depends {
            self.visit(dependency, order)?;
        }
        for wish in &info.wishes {
            // A wish may name a crypto algorithm instead of a module, and may stay unfulfilled.
            if self.files.contains_key(wish) && !order.open.contains(wish) {
                self.visit(wish, order)?;
            }
        }
        order.open.remove(name);
        order.done.insert(name.to_owned());
        order.modules.push(Module {
            file_name: format!("{name}.ko"),
            bytes,
        });
        Ok(())
    }

    fn read(&self, name: &str) -> Result<(Vec<u8>, ModInfo), BootError> {
        let path = self
            .files
            .get(name)
            .ok_or_else(|| BootError::ModuleMissing {
                module: name.into(),
                kernel_version: self.kernel_version.clone(),
            })?;
        let unreadable = |reason: String| BootError::ModuleUnreadable {
            path: path.clone(),
            reason,
        };
        let bytes = decompress(path, files::read(path)?).map_err(|e| unreadable(e.to_string()))?;
        let info = modinfo::read(&bytes).map_err(unreadable)?;
        Ok((bytes, info))
    }
}

#[derive(Default)]
struct LoadOrder {
    modules: Vec<Module>,
    done: BTreeSet<String>,
    open: BTreeSet<String>,
}

/// Adds every module file below `dir`. Links are not followed: `build` and `source` lead elsewhere.
fn collect(dir: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<(), BootError> {
    let entries = fs::read_dir(dir).map_err(BootError::io("list", dir))?;
    for entry in entries {
        let entry = entry.map_err(BootError::io("list", dir))?;
        let kind = entry.file_type().map_err(BootError::io("list", dir))?;
        let path = entry.path();
        if kind.is_dir() {
            collect(&path, found)?;
        } else if let Some(name) = module_name(&path).filter(|_| kind.is_file()) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// The module's name if the path is one of a module file, compressed or not.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let stem = ["", ".xz", ".zst", ".gz"]
        .iter()
        .find_map(|suffix| file.strip_suffix(suffix)?.strip_suffix(".ko"))?;
    Some(modinfo::normalise(stem))
}

fn decompress(path: &Path, bytes: Vec<u8>) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => lzma_rust2::XzReader::new(bytes.as_slice(), true).read_to_end(&mut out)?,
        Some("zst") => zstd::Decoder::new(bytes.as_slice())?.read_to_end(&mut out)?,
        Some("gz") => flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut out)?,
        _ => return Ok(bytes),
    };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_files_are_recognised_in_every_packing() {
        for (file, name) in [
            ("kernel/fs/erofs/erofs.ko", Some("erofs")),
            ("a/virtio-rng.ko.xz", Some("virtio_rng")),
            ("a/virtio_blk.ko.zst", Some("virtio_blk")),
            ("a/x.ko.gz", Some("x")),
            ("a/modules.order", None),
            ("a/readme.gz", None),
        ] {
            assert_eq!(module_name(Path::new(file)).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn a_tree_without_its_list_of_builtin_modules_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = ModuleTree::open(dir.path()).err().unwrap();
        assert!(matches!(error, BootError::ModulesMissing { .. }), "{error}");
    }

    /// A relocatable object with nothing but a `.modinfo` section.
    fn module(modinfo: &str) -> Vec<u8> {
        use object::write::Object;
        use object::{Architecture, BinaryFormat, Endianness, SectionKind};

        let mut elf = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = elf.add_section(Vec::new(), b".modinfo".to_vec(), SectionKind::ReadOnlyData);
        elf.append_section_data(section, modinfo.replace('|', "\0").as_bytes(), 1);
        elf.write().unwrap()
    }

    /// A module tree with `modules`, in which all other wanted modules are built in.
    fn tree(modules: &[(&str, &str)]) -> (tempfile::TempDir, ModuleTree) {
        let dir = tempfile::tempdir().unwrap();
        let kernel = dir.path().join("kernel/drivers");
        fs::create_dir_all(&kernel).unwrap();
        for (name, modinfo) in modules {
            fs::write(kernel.join(name), module(modinfo)).unwrap();
        }
        let is_module = |name: &&str| modules.iter().any(|(file, _)| file.starts_with(*name));
        let builtin: String = WANTED
            .iter()
            .filter(|name| !is_module(name))
            .map(|name| format!("kernel/x/{name}.ko\n"))
            .collect();
        fs::write(dir.path().join("modules.builtin"), builtin).unwrap();
        let tree = ModuleTree::open(dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn every_module_comes_after_what_it_needs_and_built_in_ones_are_left_out() {
        let (_dir, tree) = tree(&[
            ("virtio_blk.ko", "depends=virtio-ring,virtio|"),
            ("virtio.ko", "license=GPL|"),
            ("virtio-ring.ko", "depends=virtio|"),
            ("overlay.ko", "softdep=pre: crc32c extra|"),
            ("extra.ko", "depends=|"),
            ("unrelated.ko", "depends=|"),
        ]);
        let order: Vec<_> = tree
            .load_wanted()
            .unwrap()
            .common
            .into_iter()
            .map(|module| module.file_name)
            .collect();
        assert_eq!(
            order,
            [
                "virtio.ko",
                "virtio_ring.ko",
                "virtio_blk.ko",
                "extra.ko",
                "overlay.ko"
            ]
        );
    }

    #[test]
    fn modules_for_vsock_are_apart_and_are_no_more_than_what_the_others_lack() {
        let (_dir, tree) = tree(&[
            ("virtio.ko", "depends=|"),
            ("virtio_blk.ko", "depends=virtio|"),
            ("vsock.ko", "depends=|"),
            ("vmw_vsock_virtio_transport.ko", "depends=virtio,vsock|"),
        ]);
        let modules = tree.load_wanted().unwrap();
        let names = |modules: Vec<Module>| modules.into_iter().map(|it| it.file_name);
        assert!(names(modules.common).eq(["virtio.ko", "virtio_blk.ko"]));
        assert!(names(modules.vsock).eq(["vsock.ko", "vmw_vsock_virtio_transport.ko"]));
    }

    #[test]
    fn modules_that_need_each_other_are_refused() {
        let (_dir, tree) = tree(&[("erofs.ko", "depends=a|"), ("a.ko", "depends=erofs|")]);
        let error = tree.load_wanted().err().unwrap();
        assert!(matches!(error, BootError::ModuleCycle { .. }), "{error}");
    }

    #[test]
    fn a_module_file_of_other_content_is_refused_with_its_path() {
        let (dir, tree) = tree(&[("erofs.ko", "depends=|")]);
        fs::write(dir.path().join("kernel/drivers/erofs.ko"), "text").unwrap();
        let error = tree.load_wanted().err().unwrap();
        assert!(
            error.to_string().contains("erofs.ko is not readable"),
            "{error}"
        );
    }

    #[test]
    fn a_wanted_module_that_exists_nowhere_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let tree_dir = dir.path().join("6.0-test");
        fs::create_dir_all(tree_dir.join("kernel")).unwrap();
        fs::write(tree_dir.join("modules.builtin"), "kernel/virtio_mmio.ko\n").unwrap();
        let error = ModuleTree::open(&tree_dir)
            .unwrap()
            .load_wanted()
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "kernel 6.0-test has no module virtio_pci"
        );
    }
}
