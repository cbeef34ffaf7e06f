//! The files that say which machine this is.

use std::fs;
use std::io;
use std::path::Path;

use protocol::MachineId;

/// Where programs of the guest read how often their machine woke as another one.
pub(crate) const GENERATION: &str = "run/coppice/generation";

/// Address that stands for the machine itself in `/etc/hosts`, as Debian does it: it needs no network.
const OWN_ADDRESS: &str = "127.0.1.1";

/// Writes host name, machine id and generation below `root`.
pub(crate) fn write(
    root: &Path,
    hostname: &str,
    machine_id: MachineId,
    instance_id: &str,
    generation: u64,
) -> io::Result<()> {
    let etc = root.join("etc");
    fs::create_dir_all(&etc)?;
    replace(&etc.join("hostname"), &format!("{hostname}\n"))?;
    let hosts = etc.join("hosts");
    let known = match fs::read_to_string(&hosts) {
        Ok(known) => known,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    replace(&hosts, &hosts_with(&known, hostname))?;
    replace(&etc.join("machine-id"), &machine_id_text(machine_id))?;
    let file = root.join(GENERATION);
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    replace(
        &file,
        &format!("generation={generation}\ninstance={instance_id}\n"),
    )
}

/// Writes only what differs: an untouched page is a page less that a fork has of its own. The file is written in
/// place because guests mount things over these names.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    match fs::read(path) {
        Ok(old) if old == text.as_bytes() => Ok(()),
        Ok(_) | Err(_) => fs::write(path, text),
    }
}

/// The text with one line for the machine itself, other lines as they were; a complete file when there was none.
fn hosts_with(known: &str, hostname: &str) -> String {
    let own = format!("{OWN_ADDRESS}\t{hostname}");
    if known.trim().is_empty() {
        return format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}\n");
    }
    let is_own = |line: &&str| line.split_whitespace().next() == Some(OWN_ADDRESS);
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
        let first = hosts_with("", "web-1");
        assert!(first.contains("127.0.0.1\tlocalhost\n") && first.ends_with("127.0.1.1\tweb-1\n"));
        let edited = first.replace("127.0.1.1\tweb-1", "127.0.1.1 web-1\n10.0.0.9 db");
        let second = hosts_with(&edited, "web-2");
        assert!(second.contains("10.0.0.9 db\n") && second.ends_with("127.0.1.1\tweb-2\n"));
        assert!(!second.contains("web-1"));
        assert_eq!(hosts_with(&second, "web-2"), second);
    }

    #[test]
    fn files_are_written_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "web", [0xab; 16], "id1", 1).unwrap();
        write(root.path(), "web-2", [0x01; 16], "id2", 2).unwrap();
        let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
        assert_eq!(read("etc/hostname"), "web-2\n");
        assert_eq!(read("etc/machine-id"), "01010101010101010101010101010101\n");
        assert_eq!(read(GENERATION), "generation=2\ninstance=id2\n");
    }
}
