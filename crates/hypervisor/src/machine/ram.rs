//! RAM on its way to a VMM.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memory::{Image, LoadedRam, Loader, OwnRam};

use super::blocking;
use crate::{ProcessId, TemplateHold, VmmError};

/// RAM of the machine; kept until the VMM has it.
pub(crate) enum Ram {
    Own(OwnRam),
    Shared(Arc<LoadedRam>),
}

impl Ram {
    /// The memfd as the launcher can open it.
    pub(crate) fn path(&self) -> PathBuf {
        let fd = match self {
            Self::Own(ram) => ram.as_fd().as_raw_fd(),
            Self::Shared(ram) => ram.as_fd().as_raw_fd(),
        };
        PathBuf::from(format!("/proc/{}/fd/{fd}", std::process::id()))
    }
}

/// Finds the sealed RAM that an adopted machine has on descriptor `fd`; none if it has nothing there.
pub(crate) fn adopt_ram(
    loader: &Loader,
    process: ProcessId,
    fd: i32,
) -> Result<Option<Arc<LoadedRam>>, VmmError> {
    let path = format!("/proc/{}/fd/{fd}", process.pid);
    match loader.adopt(Path::new(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        adopted => adopted.map_err(VmmError::io("adopt", Path::new(&path))),
    }
}

/// Verifies an image and loads its RAM, for a template.
pub(crate) async fn hold(
    loader: &Arc<Loader>,
    image_dir: &Path,
) -> Result<Box<dyn TemplateHold>, VmmError> {
    let (loader, dir) = (Arc::clone(loader), image_dir.to_path_buf());
    let ram = blocking(move || {
        let image = Image::open(&dir)?;
        image.verify_state_and_disks(loader.verified())?;
        Ok(loader.load(&image, image.manifest().layers.len())?)
    })
    .await?;
    Ok(Box::new(Hold { ram }))
}

struct Hold {
    ram: Arc<LoadedRam>,
}

impl TemplateHold for Hold {
    fn resident_bytes(&self) -> u64 {
        self.ram.resident_bytes().unwrap_or(0)
    }
}
