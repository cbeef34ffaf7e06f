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

/// What tells guest RAM from other mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RamMapping {
    /// It maps this file.
    File(FileId),
    /// It is anonymous, and the only memory for which no swap was reserved.
    Unreserved,
}

/// Reads the sums of process `pid`, whose guest RAM is `ram`.
pub(crate) fn read_smaps(pid: i32, ram: RamMapping) -> io::Result<Smaps> {
    Ok(parse(
        &std::fs::read_to_string(format!("/proc/{pid}/smaps"))?,
        ram,
    ))
}

fn parse(text: &str, ram: RamMapping) -> Smaps {
    let mut smaps = Smaps::default();
    let mut header = "";
    let mut sums = Sums::default();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some(first) = fields.next() else { continue };
        if !first.ends_with(':') {
            header = line;
            continue;
        }
        let sum = match first {
            "Rss:" => &mut sums.rss,
            "Pss:" => &mut sums.pss,
            "Anonymous:" => &mut sums.anonymous,
            "Swap:" => &mut sums.swap,
            // The last line of a mapping.
            "VmFlags:" => {
                let is_ram = match ram {
                    RamMapping::File(file) => is_file(header, file),
                    RamMapping::Unreserved => fields.any(|flag| flag == "nr"),
                };
                let whole = if is_ram {
                    &mut smaps.ram
                } else {
                    &mut smaps.other
                };
                whole.add(std::mem::take(&mut sums));
                continue;
            }
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

impl Sums {
    fn add(&mut self, more: Self) {
        self.rss += more.rss;
        self.pss += more.pss;
        self.anonymous += more.anonymous;
        self.swap += more.swap;
    }
}

fn is_file(header: &str, file: FileId) -> bool {
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
    device == Some(file.device)
        && fields.next().and_then(|inode| inode.parse().ok()) == Some(file.inode)
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
VmFlags: rd wr mr mw me nr
7f4-7f5 r-xp 00000000 08:01 77 /usr/bin/x
Rss:                   1 kB
VmFlags: rd ex
";
        let file = FileId {
            device: (0, 1),
            inode: 77,
        };
        let smaps = parse(text, RamMapping::File(file));
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
        let smaps = parse(text, RamMapping::Unreserved);
        assert_eq!((smaps.ram.rss, smaps.ram.anonymous), (8192, 8192));
        assert_eq!(smaps.other.rss, 103_424);
    }
}
