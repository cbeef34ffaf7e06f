//! The files that say which machine this is.
//!
//! They live in a small RAM file system and are mounted over their places in `/etc`, and they are
//! kept open. Writing them when a fork wakes is then a few short system calls instead of a journey
//! through overlay, ext4 and its journal: under emulation that made more than half of the time a
//! resume took. It also leaves the disk alone. As in a container, programs can write to these files
//! but not rename others over them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use protocol::MachineId;

/// Directory of the guest that holds the files; `generation` in it says how often the machine woke
/// as another one.
pub(crate) const DIRECTORY: &str = "/run/coppice";

/// Names in [`DIRECTORY`] and where they are mounted.
pub(crate) const MOUNTED: [(&str, &str); 3] = [
    ("hostname", "/etc/hostname"),
    ("hosts", "/etc/hosts"),
    ("machine-id", "/etc/machine-id"),
];

/// Address that stands for a machine without a network in `/etc/hosts`, as Debian does it.
const OWN_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// The files, open.
#[derive(Debug)]
pub(crate) struct IdentityFiles {
    hostname: File,
    hosts: File,
    machine_id: File,
    generation: File,
}

impl IdentityFiles {
    /// Makes the files in `directory`; `hosts` is what the image has under that name.
    pub(crate) fn create(directory: &Path, hosts: &str) -> io::Result<Self> {
        let files = IdentityFiles {
            hostname: create(directory, "hostname")?,
            hosts: create(directory, "hosts")?,
            machine_id: create(directory, "machine-id")?,
            generation: create(directory, "generation")?,
        };
        files.hosts.write_all_at(hosts.as_bytes(), 0)?;
        Ok(files)
    }

    /// Writes who the machine is. `address` is its own in its network, if it has one.
    pub(crate) fn write(
        &self,
        hostname: &str,
        address: Option<Ipv4Addr>,
        machine_id: MachineId,
        instance_id: &str,
        generation: u64,
    ) -> io::Result<()> {
        replace(&self.hostname, format!("{hostname}\n"))?;
        let known = content(&self.hosts)?;
        replace(
            &self.hosts,
            hosts_with(
                &String::from_utf8_lossy(&known),
                address.unwrap_or(OWN_ADDRESS),
                hostname,
            ),
        )?;
        replace(&self.machine_id, machine_id_text(machine_id))?;
        replace(
            &self.generation,
            format!("generation={generation}\ninstance={instance_id}\n"),
        )
    }

    /// Writes what the files hold already. Only while nobody else writes to them.
    pub(crate) fn rewrite(&self) -> io::Result<()> {
        for file in [
            &self.hostname,
            &self.hosts,
            &self.machine_id,
            &self.generation,
        ] {
            replace(file, content(file)?)?;
        }
        Ok(())
    }
}

/// Makes an empty file that everybody may read.
pub(crate) fn create(directory: &Path, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(directory.join(name))
}

fn content(mut file: &File) -> io::Result<Vec<u8>> {
    io::Seek::rewind(&mut file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn replace(file: &File, content: impl AsRef<[u8]>) -> io::Result<()> {
    let content = content.as_ref();
    file.write_all_at(content, 0)?;
    file.set_len(content.len() as u64)
}

/// The text with one line for the machine itself, other lines as they were; a complete file when
/// there was none.
fn hosts_with(known: &str, address: Ipv4Addr, hostname: &str) -> String {
    let address = address.to_string();
    let own = format!("{address}\t{hostname}");
    if known.trim().is_empty() {
        return format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}\n");
    }
    let is_own = |line: &&str| line.split_whitespace().next() == Some(&address);
    let mut lines: Vec<&str> = known.lines().filter(|line| !is_own(line)).collect();
    lines.push(&own);
    lines.join("\n") + "\n"
}

fn machine_id_text(machine_id: MachineId) -> String {
    machine_id
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keeps_foreign_lines() {
        let first = hosts_with("", OWN_ADDRESS, "web-1");
        assert!(first.contains("127.0.0.1\tlocalhost\n") && first.ends_with("127.0.1.1\tweb-1\n"));
        let edited = first.replace("127.0.1.1\tweb-1", "127.0.1.1 web-1\n10.0.0.9 db");
        let second = hosts_with(&edited, OWN_ADDRESS, "web-2");
        assert!(second.contains("10.0.0.9 db\n") && second.ends_with("127.0.1.1\tweb-2\n"));
        assert!(!second.contains("web-1"));
        assert_eq!(hosts_with(&second, OWN_ADDRESS, "web-2"), second);
        let address = Ipv4Addr::new(10, 0, 0, 2);
        let third = hosts_with(&second, address, "web-3");
        assert!(third.ends_with("10.0.0.2\tweb-3\n"), "{third}");
        let fourth = hosts_with(&third, address, "web-4");
        assert!(!fourth.contains("web-3") && fourth.ends_with("10.0.0.2\tweb-4\n"));
    }

    #[test]
    fn files_are_written_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let files = IdentityFiles::create(dir.path(), "10.1.1.1 from-the-image\n").unwrap();
        files
            .write("a-rather-long-name", None, [0xab; 16], "id1", 10)
            .unwrap();
        files.write("web-2", None, [0x01; 16], "id2", 2).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("hostname"), "web-2\n");
        assert_eq!(read("hosts"), "10.1.1.1 from-the-image\n127.0.1.1\tweb-2\n");
        assert_eq!(read("machine-id"), "01010101010101010101010101010101\n");
        assert_eq!(read("generation"), "generation=2\ninstance=id2\n");

        std::fs::write(dir.path().join("hosts"), b"10.2.2.2 caf\xe9\n").unwrap();
        files.rewrite().unwrap();
        assert_eq!(read("hostname"), "web-2\n");
        let hosts = std::fs::read(dir.path().join("hosts")).unwrap();
        assert_eq!(hosts, b"10.2.2.2 caf\xe9\n");
    }
}
