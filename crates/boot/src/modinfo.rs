//! What a kernel module says about itself.
//!
//! A module package carries no `modules.dep`: that file is made at installation by depmod, which we do
//! not run. Every module however lists what it needs in its own `.modinfo` section, written there when
//! the kernel was built.

use object::{Object, ObjectSection};

/// The facts of a module that decide what is loaded before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ModInfo {
    /// Modules whose symbols it uses; it cannot be loaded without them.
    pub depends: Vec<String>,
    /// Modules it would like to have loaded before it, if there are any of that name.
    pub wishes: Vec<String>,
}

/// Reads the facts from the bytes of an uncompressed module.
pub(crate) fn read(module: &[u8]) -> Result<ModInfo, String> {
    let elf = object::read::elf::ElfFile64::<object::LittleEndian>::parse(module)
        .map_err(|error| error.to_string())?;
    let section = elf
        .section_by_name(".modinfo")
        .ok_or_else(|| "no .modinfo section".to_owned())?;
    let bytes = section.data().map_err(|error| error.to_string())?;
    Ok(parse(bytes))
}

/// Parses the section: `key=value` strings, each closed by a zero byte, sometimes padded with more.
fn parse(section: &[u8]) -> ModInfo {
    let mut info = ModInfo::default();
    for entry in section.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(entry)
            .ok()
            .and_then(|s| s.split_once('='))
        else {
            continue;
        };
        match key {
            "depends" => info.depends.extend(names(value.split(','))),
            // "pre: a b post: c": what follows "post:" is wanted after the module and is none of ours.
            "softdep" => {
                if let Some((_, rest)) = value.split_once("pre:") {
                    let pre = rest.split("post:").next().unwrap_or_default();
                    info.wishes.extend(names(pre.split_whitespace()));
                }
            }
            _ => {}
        }
    }
    info
}

/// The name the kernel uses for a module: file names and references mix `-` and `_` freely.
pub(crate) fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

fn names<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<String> {
    parts
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(normalise)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_and_wishes_are_read_and_other_keys_ignored() {
        let section =
            b"license=GPL\0\0\0depends=virtio-ring,virtio\0softdep=pre: crc32c a-b post: x\0\
            alias=virtio:d1v*\0depends=\0name=sample";
        assert_eq!(
            parse(section),
            ModInfo {
                depends: vec!["virtio_ring".into(), "virtio".into()],
                wishes: vec!["crc32c".into(), "a_b".into()],
            }
        );
    }

    #[test]
    fn bytes_that_are_no_module_are_an_error_not_a_panic() {
        assert!(read(b"").is_err());
        assert!(read(b"\x7fELF but not really").is_err());
    }
}
