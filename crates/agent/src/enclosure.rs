//! The one place all processes of a machine but the agent live in.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A file that takes the ids of new processes: `cgroup.procs` of the cgroup that can be frozen.
/// Clones share the descriptor.
#[derive(Debug, Clone)]
pub struct Enclosure {
    procs: Arc<OwnedFd>,
}

/// Room for the largest process id and the end of the line.
const TEXT: usize = 16;

impl Enclosure {
    /// Takes the file, open for writing.
    pub fn new(procs: OwnedFd) -> Self {
        Enclosure {
            procs: Arc::new(procs),
        }
    }

    /// Puts the calling process in. Runs between fork and exec as well, so it makes system calls
    /// only. In a frozen enclosure it does not return before the thaw.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let mut text = [0; TEXT];
        let mut rest = &mut text[..];
        writeln!(rest, "{}", rustix::process::getpid())?;
        let used = TEXT - rest.len();
        // The kernel, like an appending file, takes a short line at once or not at all.
        rustix::io::write(&*self.procs, &text[..used])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_writes_its_id() {
        let (read, write) = io::pipe().unwrap();
        Enclosure::new(write.into()).enter().unwrap();
        let line = io::read_to_string(read).unwrap();
        assert_eq!(line, format!("{}\n", std::process::id()));
    }
}
