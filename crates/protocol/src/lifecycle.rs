//! Starting a machine's program, and waking a machine from a memory image.

use serde::{Deserialize, Serialize};

use crate::failure::FailureKind;
use crate::limits::MIN_ENTROPY;
use crate::{Failure, GuestNetwork};

/// The 128 bits behind `/etc/machine-id`.
pub type MachineId = [u8; 16];

/// How far the guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestPhase {
    /// The agent is up; no program was started.
    Waiting,
    /// The program runs.
    Started {
        /// Its process id in the guest.
        pid: u32,
    },
    /// The program ended.
    Exited(ProgramExit),
}

/// How the machine's program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramExit {
    /// Exit status, 128 + signal, or 126/127 when it could not be run.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Why it could not be run, or which signal killed it; `None` when it exited by itself.
    pub message: Option<String>,
}

/// Everything the agent needs to set a freshly booted machine up and start its program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartSpec {
    /// Id of the instance.
    pub instance_id: String,
    /// Host name of the machine.
    pub hostname: String,
    /// Written to `/etc/machine-id`.
    pub machine_id: MachineId,
    /// Fresh random bytes, at least [`MIN_ENTROPY`], credited to the kernel's generator.
    #[serde(with = "serde_bytes")]
    pub entropy: Vec<u8>,
    /// Wall clock, nanoseconds since 1970.
    pub wall_clock_ns: u64,
    /// Program and arguments; must not be empty.
    pub argv: Vec<String>,
    /// Environment; `PATH`, `HOME` and `HOSTNAME` are added when missing.
    pub env: Vec<(String, String)>,
    /// Working directory, made when missing; empty is `/`.
    pub workdir: String,
    /// `user[:group]`, names or numbers, as in an image's configuration; empty is root.
    pub user: String,
    /// Signal that asks the program to end.
    pub stop_signal: i32,
    /// Addresses of the machine's network card; `None` leaves it down.
    pub network: Option<GuestNetwork>,
}

impl StartSpec {
    /// Refuses what no agent could carry out.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Invalid` that names the field.
    pub fn validate(&self) -> Result<(), Failure> {
        validate_identity(&self.hostname, &self.entropy)?;
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(Failure::new(FailureKind::Invalid, "argv names no program"));
        }
        if !(1..=64).contains(&self.stop_signal) {
            return Err(Failure::new(
                FailureKind::Invalid,
                "stop_signal is not a signal number",
            ));
        }
        self.network.as_ref().map_or(Ok(()), GuestNetwork::validate)
    }
}

/// Who a machine is after it woke from a memory image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Id of the instance.
    pub instance_id: String,
    /// Host name of the machine.
    pub hostname: String,
    /// Written to `/etc/machine-id`.
    pub machine_id: MachineId,
    /// Fresh random bytes, at least [`MIN_ENTROPY`], credited to the kernel's generator before
    /// anything else happens.
    #[serde(with = "serde_bytes")]
    pub entropy: Vec<u8>,
    /// Wall clock, nanoseconds since 1970.
    pub wall_clock_ns: u64,
    /// `true` for a fork, `false` when the same machine goes on. A new machine has none of the TCP
    /// connections that the other one had with the world outside: they are aborted.
    pub new_machine: bool,
    /// Command that must succeed before the machine counts as resumed.
    pub post_fork: Option<PostFork>,
    /// The network from now on; `None` leaves it as it was. A machine that was started without one
    /// cannot get one.
    pub network: Option<GuestNetwork>,
}

impl Identity {
    /// Refuses what no agent could carry out.
    ///
    /// # Errors
    /// A [`Failure`] of kind `Invalid` that names the field.
    pub fn validate(&self) -> Result<(), Failure> {
        validate_identity(&self.hostname, &self.entropy)?;
        self.network.as_ref().map_or(Ok(()), GuestNetwork::validate)
    }
}

/// A command run in a fork before the fork is announced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostFork {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Added to the environment of the machine's program.
    pub env: Vec<(String, String)>,
    /// The fork fails when the command takes longer.
    pub timeout_ms: u64,
}

/// How the post-fork command ended. Only success is reported this way; anything else fails the
/// resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookResult {
    /// The first bytes it wrote on standard output and standard error.
    #[serde(with = "serde_bytes")]
    pub output: Vec<u8>,
    /// Time it took.
    pub duration_ms: u64,
}

/// What is known after a resume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeReport {
    /// Result of the post-fork command, if there was one.
    pub hook: Option<HookResult>,
}

fn validate_identity(hostname: &str, entropy: &[u8]) -> Result<(), Failure> {
    // The kernel's limit for a host name is 64 bytes.
    let fits = !hostname.is_empty() && hostname.len() <= 64;
    if !fits
        || !hostname
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        return Err(Failure::new(
            FailureKind::Invalid,
            "hostname is not a host name",
        ));
    }
    if entropy.len() < MIN_ENTROPY {
        return Err(Failure::new(FailureKind::Invalid, "entropy is too short"));
    }
    Ok(())
}
