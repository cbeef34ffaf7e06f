//! Facts from `/proc/<pid>/stat`.

use std::io;

/// The fields of `/proc/<pid>/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Clock ticks since boot.
    pub(crate) start_time: u64,
    /// User and system time in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// Page faults, with and without waiting for a disk, that its threads took.
    pub(crate) page_faults: u64,
    /// Size of the address space in bytes.
    pub(crate) vms_bytes: u64,
}

/// Reads and parses the file.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: {text:?}"),
        )
    })
}

/// The user that a process runs as.
pub(crate) fn user(pid: i32) -> io::Result<u32> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path)?;
    let ids = text.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved and of file access; the second counts.
    ids.and_then(|ids| ids.split_ascii_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, path))
}

/// Size of a process's address space in bytes.
pub(crate) fn vms_bytes(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.vms_bytes)
}

/// Page faults of a process since its start.
pub(crate) fn page_faults(pid: i32) -> io::Result<u64> {
    Ok(stat(pid)?.page_faults)
}

/// CPU time of a process since its start.
pub(crate) fn cpu_seconds(pid: i32) -> io::Result<f64> {
    // Both are far below 2^52, so the conversion is exact.
    Ok(stat(pid)?.cpu_ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The command name may hold blanks and parentheses, so the fields are counted from the last `)`.
fn parse(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Numbers as in proc(5), where the state, the first one here, is field 3.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        start_time: field(22)?,
        cpu_ticks: field(14)? + field(15)?,
        page_faults: field(10)? + field(12)?,
        vms_bytes: field(23)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fields_behind_strange_names() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 5 0 2 0 11 22 0 0 20 0 1 0 333 1 1";
        assert_eq!(
            parse(text),
            Some(Stat {
                start_time: 333,
                cpu_ticks: 33,
                page_faults: 7,
                vms_bytes: 1
            })
        );
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn reads_our_own() {
        let pid = i32::try_from(std::process::id()).unwrap();
        assert!(stat(pid).unwrap().start_time > 0);
        assert_eq!(user(pid).unwrap(), rustix::process::geteuid().as_raw());
    }
}
