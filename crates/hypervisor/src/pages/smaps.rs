//! Sums of `/proc/<pid>/smaps`: the RAM mapping apart from all others.

use std::io;

use super::FileId;

/// Bytes of mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sums {
    pub(crate) rss: u64,
    pub(crate) pss: u64,
    pub(crate) anonymous: u64,
    pub(crate) swap: u64,
}

/// What a process maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Smaps {
    /// Mappings of the RAM file.
    pub(crate) ram: Sums,
    /// All others.
    pub(crate) other: Sums,
}

/// Reads the sums of process `pid`, whose guest RAM is `ram`.
pub(crate) fn read_smaps(pid: i32, ram: FileId) -> io::Result<Smaps> {
    Ok(parse(
        &std::fs::read_to_string(format!("/proc/{pid}/smaps"))?,
        ram,
    ))
}

fn parse(text: &str, ram: FileId) -> Smaps {
    let mut smaps = Smaps::default();
    let mut in_ram = false;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(first) = fields.next() else { continue };
        if !first.ends_with(':') {
            in_ram = is_ram(line, ram);
            continue;
        }
        let sums = if in_ram {
            &mut smaps.ram
        } else {
            &mut smaps.other
        };
        let sum = match first {
            "Rss:" => &mut sums.rss,
            "Pss:" => &mut sums.pss,
            "Anonymous:" => &mut sums.anonymous,
            "Swap:" => &mut sums.swap,
            _ => continue,
        };
        *sum += fields
            .next()
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            * 1024;
    }
    smaps
}

fn is_ram(header: &str, ram: FileId) -> bool {
    let mut fields = header.split_ascii_whitespace().skip(3);
    let device = fields
        .next()
        .and_then(|device| device.split_once(':'))
        .and_then(|(major, minor)| {
            Some((
                u32::from_str_radix(major, 16).ok()?,
                u32::from_str_radix(minor, 16).ok()?,
            ))
        });
    device == Some(ram.device)
        && fields.next().and_then(|inode| inode.parse().ok()) == Some(ram.inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_ram_apart() {
        let text = "\
7f0-7f1 rw-p 00000000 00:01 77 /memfd:coppice-ram-x (deleted)
Size:             262144 kB
Rss:                 100 kB
Pss:                  60 kB
Anonymous:            20 kB
Swap:                  4 kB
VmFlags: rd wr
7f2-7f3 rw-p 00000000 00:00 0 [heap]
Rss:                   8 kB
Pss:                   8 kB
Anonymous:             8 kB
7f4-7f5 r-xp 00000000 08:01 77 /usr/bin/x
Rss:                   1 kB
";
        let smaps = parse(
            text,
            FileId {
                device: (0, 1),
                inode: 77,
            },
        );
        assert_eq!(
            smaps.ram,
            Sums {
                rss: 102_400,
                pss: 61_440,
                anonymous: 20_480,
                swap: 4096
            }
        );
        assert_eq!(
            smaps.other,
            Sums {
                rss: 9216,
                pss: 8192,
                anonymous: 8192,
                swap: 0
            }
        );
    }
}
