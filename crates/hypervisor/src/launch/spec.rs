//! What the launcher is told, as JSON on its standard input. Written and read by the same program, so it has no version
//! of its own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One VMM to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Spec {
    /// The daemon; the launcher gives up when this is not its parent.
    pub(crate) parent_pid: i32,
    /// This boot of the host, for the mark.
    pub(crate) boot_id: String,
    /// Working directory of the VMM; the mark and the sockets go here.
    pub(crate) run_dir: PathBuf,
    /// Program.
    pub(crate) program: PathBuf,
    /// Its arguments, the program's name not among them.
    pub(crate) arguments: Vec<String>,
    /// Files it inherits.
    pub(crate) files: Vec<File>,
    /// Listening sockets it inherits.
    pub(crate) listeners: Vec<Listener>,
    /// The network it has.
    pub(crate) network: Network,
    /// Its standard error is appended here, and its output if that has no other place.
    pub(crate) log: PathBuf,
    /// Its standard output is appended here.
    pub(crate) console: Option<PathBuf>,
    /// User and group it runs as; the daemon's own if absent.
    pub(crate) uid: Option<u32>,
    /// Root file system of its own, if the program is to be jailed in one.
    pub(crate) jail: Option<Jail>,
}

/// A root file system of a VMM's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Jail {
    /// Directory that becomes the root; made if it is missing.
    pub(crate) root: PathBuf,
    /// User and group of what is in it. The program itself sees to it that it runs as this user.
    pub(crate) uid: u32,
    /// Files of the host in it.
    pub(crate) files: Vec<JailFile>,
    /// Names of empty files in it.
    pub(crate) empty: Vec<String>,
    /// Most that its own files may take of memory; those of the host do not count.
    pub(crate) bytes: u64,
    /// Standard input of the program, nothing if absent.
    pub(crate) stdin: Option<PathBuf>,
}

/// A file of the host in a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JailFile {
    /// Name in the root.
    pub(crate) name: String,
    /// File of the host.
    pub(crate) path: PathBuf,
    /// What may be done with it.
    pub(crate) access: Access,
}

/// A file on a fixed descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    /// Descriptor in the VMM.
    pub(crate) fd: i32,
    /// File; a memfd of the daemon goes as `/proc/<daemon>/fd/<n>`.
    pub(crate) path: PathBuf,
    /// How it is opened.
    pub(crate) access: Access,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Access {
    /// For reading.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// A listening stream socket on a fixed descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Descriptor in the VMM.
    pub(crate) fd: i32,
    /// Name in the run directory.
    pub(crate) name: String,
}

/// The network of a VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Network {
    /// None: a namespace of its own with nothing in it, where the daemon may make one.
    Absent,
    /// A namespace that was made for it.
    Slot(Slot),
}

/// A namespace with a TAP device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slot {
    /// Bind mount of the namespace.
    pub(crate) netns: PathBuf,
    /// Name of the TAP device.
    pub(crate) tap: String,
    /// Descriptor of the TAP device in the VMM; none if the VMM opens it by its name.
    pub(crate) fd: Option<i32>,
}
