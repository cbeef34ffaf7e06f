//! The initrd: a cpio archive with the agent as `/init` and the modules it loads.
//!
//! Layout seen by the agent:
//!
//! - `/init`: the agent, mode 0755.
//! - `/modules/<name>.ko`: uncompressed kernel modules.
//! - `/modules/order`: file names of those that every guest loads, one a line, each after the ones it
//!   depends on.
//! - `/modules/order.vsock`: the same of those that a guest loads besides when its host speaks by vsock.
//! - `/dev`, `/proc`, `/run`, `/sys`: empty directories to mount on.
//!
//! The archive is not compressed. The guest would have to decompress it on a virtual CPU, which under
//! emulation costs more than copying the few megabytes that compression would save.

use std::io;

use cpio::newc::Builder;
use cpio::newc::ModeFileType::{self, Directory, Regular};

use crate::modules::{Module, Modules};

/// The archive's bytes. The same agent and modules always give the same bytes.
pub(crate) fn build(agent: &[u8], modules: &Modules) -> io::Result<Vec<u8>> {
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "run", "sys", "modules"] {
        archive.add_directory(dir)?;
    }
    archive.add_file("init", 0o755, agent)?;
    archive.add_modules("modules/order", &modules.common)?;
    archive.add_modules("modules/order.vsock", &modules.vsock)?;
    archive.finish()
}

/// An initrd in the making: a cpio archive in the format `newc`.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    /// Adds an entry owned by root with the time stamp zero and an inode number of its own: equal
    /// numbers would be taken for hard links by some readers.
    fn add_entry(
        &mut self,
        name: &str,
        kind: ModeFileType,
        mode: u32,
        body: &[u8],
    ) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(body.len())
            .map_err(|_| io::Error::other(format!("{name} is too large for an initrd")))?;
        let mut entry = Builder::new(name)
            .ino(self.inode)
            .mode(mode)
            .set_mode_file_type(kind)
            .nlink(1)
            .write(&mut self.bytes, size);
        io::Write::write_all(&mut entry, body)?;
        entry.finish()?;
        Ok(())
    }

    /// Adds an empty directory, `name` relative to the root.
    ///
    /// # Errors
    /// When the name cannot be in an archive.
    pub fn add_directory(&mut self, name: &str) -> io::Result<()> {
        self.add_entry(name, Directory, 0o755, &[])
    }

    /// Adds a file with these permissions.
    ///
    /// # Errors
    /// When it is too long, or the name cannot be in an archive.
    pub fn add_file(&mut self, name: &str, mode: u32, body: &[u8]) -> io::Result<()> {
        self.add_entry(name, Regular, mode, body)
    }

    /// Adds modules below `modules/`, and the list of them, one file name a line, in their order.
    ///
    /// # Errors
    /// As [`Archive::add_file`].
    pub fn add_modules(&mut self, list: &str, modules: &[Module]) -> io::Result<()> {
        let mut order = String::new();
        for module in modules {
            order.push_str(&module.file_name);
            order.push('\n');
            let name = format!("modules/{}", module.file_name);
            self.add_file(&name, 0o444, &module.bytes)?;
        }
        self.add_file(list, 0o444, order.as_bytes())
    }

    /// The archive's bytes.
    ///
    /// # Errors
    /// None that writing to memory does not have.
    pub fn finish(self) -> io::Result<Vec<u8>> {
        cpio::newc::trailer(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn sample() -> Modules {
        let module = |name: &str| Module {
            file_name: name.into(),
            bytes: name.as_bytes().to_vec(),
        };
        Modules {
            common: ["virtio.ko", "erofs.ko"].map(module).into(),
            vsock: [module("vsock.ko")].into(),
        }
    }

    /// Every entry of an archive: name, permission bits and type, content.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(archive).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut body = Vec::new();
            reader.read_to_end(&mut body).unwrap();
            found.push((name, mode, body));
            archive = reader.finish().unwrap();
        }
    }

    #[test]
    fn the_agent_is_init_and_modules_are_listed_in_load_order() {
        let found = entries(&build(b"agent bytes", &sample()).unwrap());
        let get = |name: &str| {
            let entry = found.iter().find(|(n, ..)| n == name).expect(name);
            (entry.1, entry.2.as_slice())
        };
        assert_eq!(get("init"), (0o100_755, b"agent bytes".as_slice()));
        assert_eq!(
            get("modules/order"),
            (0o100_444, b"virtio.ko\nerofs.ko\n".as_slice())
        );
        assert_eq!(
            get("modules/order.vsock"),
            (0o100_444, b"vsock.ko\n".as_slice())
        );
        assert_eq!(get("modules/vsock.ko").1, b"vsock.ko");
        assert_eq!(get("modules/erofs.ko"), (0o100_444, b"erofs.ko".as_slice()));
        assert_eq!(get("proc").0, 0o040_755);
    }

    #[test]
    fn a_directory_is_listed_before_what_is_in_it() {
        let names: Vec<_> = entries(&build(b"", &sample()).unwrap())
            .into_iter()
            .map(|(name, ..)| name)
            .collect();
        let dir = names.iter().position(|n| n == "modules").unwrap();
        let file = names
            .iter()
            .position(|n| n.starts_with("modules/"))
            .unwrap();
        assert!(dir < file);
    }

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        assert_eq!(
            build(b"x", &sample()).unwrap(),
            build(b"x", &sample()).unwrap()
        );
    }
}
