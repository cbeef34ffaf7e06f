//! Kernel modules of the initrd.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::system::finit_module;

/// List of the modules of every guest.
pub(crate) const COMMON: &str = "order";
/// List of those that are for vsock.
pub(crate) const VSOCK: &str = "order.vsock";

/// Loads the modules named in a list in `dir`, in its order. A module that is there already is fine.
pub(crate) fn load_all(dir: &Path, list: &str) -> io::Result<()> {
    let order = match std::fs::read_to_string(dir.join(list)) {
        Ok(order) => order,
        // A kernel with everything built in needs none.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in names(&order) {
        let file = File::open(dir.join(name)).map_err(|error| named(name, &error))?;
        match finit_module(&file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(named(name, &error.into())),
        }
    }
    Ok(())
}

fn named(name: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("module {name}: {error}"))
}

/// File names, one a line; empty lines and remarks are skipped, anything that is no plain file name
/// too.
fn names(order: &str) -> impl Iterator<Item = &str> {
    order
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_lists_file_names() {
        let order = "virtio.ko\n\n# storage\n  virtio_blk.ko  \n../evil.ko\r\nerofs.ko";
        assert_eq!(
            names(order).collect::<Vec<_>>(),
            ["virtio.ko", "virtio_blk.ko", "erofs.ko"]
        );
    }
}
