//! The system calls that no safe binding covers. Everything else of the agent is safe code.
#![expect(
    unsafe_code,
    reason = "raw ioctl, signalfd, vsock addresses, kill, unshare and the code between fork and exec"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::enclosure::Enclosure;

/// `RNDADDENTROPY` of linux/random.h: `_IOW('R', 0x03, int [2])`.
const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
/// `RNDRESEEDCRNG` of linux/random.h: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Bytes one call credits at most; a seed is 32 and more is only mixed in.
const MAX_ENTROPY: usize = 256;

/// `struct rand_pool_info` of linux/random.h with room for its buffer.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: libc::c_int,
    buf_size: libc::c_int,
    buf: [u8; MAX_ENTROPY],
}

const _: () = assert!(std::mem::offset_of!(RandPoolInfo, buf) == 8);

/// Mixes `bytes` into the kernel's entropy pool and credits all of them.
pub(crate) fn credit_entropy(random: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    for part in bytes.chunks(MAX_ENTROPY) {
        let len = part.len() as libc::c_int;
        let mut info = RandPoolInfo {
            entropy_count: len * 8,
            buf_size: len,
            buf: [0; MAX_ENTROPY],
        };
        info.buf[..part.len()].copy_from_slice(part);
        // SAFETY: the kernel reads the two numbers and `buf_size` bytes behind them, all inside
        // `info`.
        check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) })?;
    }
    Ok(())
}

/// Makes the kernel's generator take a new key from its pool now.
pub(crate) fn reseed(random: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) })
}

/// Sends a signal, real-time ones too. A negative `pid` names a process group, -1 every other
/// process.
pub(crate) fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: the call touches no memory of this process.
    check(unsafe { libc::kill(pid, signal) })
}

/// Blocks SIGCHLD for this thread and returns a descriptor that is readable when one is pending.
pub(crate) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero sigset_t is a valid value, which sigemptyset then sets up properly.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid and lives through the calls; signalfd is asked for a new descriptor,
    // which is ours.
    unsafe {
        check(libc::sigemptyset(&raw mut set))?;
        check(libc::sigaddset(&raw mut set, libc::SIGCHLD))?;
        check(libc::sigprocmask(
            libc::SIG_BLOCK,
            &raw const set,
            std::ptr::null_mut(),
        ))?;
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        check(fd)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Address of the host on vsock.
pub(crate) const HOST_CID: u32 = libc::VMADDR_CID_HOST;

/// `sizeof(struct sockaddr_vm)`, which is 16.
const ADDRESS_BYTES: libc::socklen_t = std::mem::size_of::<libc::sockaddr_vm>() as _;

/// A socket that listens on a vsock port at all addresses of this machine.
pub(crate) fn listen_vsock(port: u32, backlog: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call touches no memory, and a descriptor it returns is new and ours.
    let socket = unsafe {
        let fd = libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        check(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    // SAFETY: an all-zero sockaddr_vm is a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = libc::VMADDR_CID_ANY;
    address.svm_port = port;
    // SAFETY: the kernel reads `ADDRESS_BYTES` bytes, which `address` has, during the call.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            ADDRESS_BYTES,
        )
    })?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Takes a connection that does not block, and says which address of vsock it comes from, if it is
/// one of vsock.
pub(crate) fn accept(socket: BorrowedFd<'_>) -> Result<(OwnedFd, Option<u32>), Errno> {
    // SAFETY: an all-zero sockaddr_vm is a valid value.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    let mut length = ADDRESS_BYTES;
    // SAFETY: the kernel writes at most `length` bytes to `address`, which has as many, cuts off longer
    // addresses, and tells their length; a descriptor it returns is new and ours.
    let connection = unsafe {
        let fd = libc::accept4(
            socket.as_raw_fd(),
            (&raw mut address).cast(),
            &raw mut length,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        );
        if fd < 0 {
            return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
        }
        OwnedFd::from_raw_fd(fd)
    };
    let is_vsock = length == ADDRESS_BYTES && i32::from(address.svm_family) == libc::AF_VSOCK;
    Ok((connection, is_vsock.then_some(address.svm_cid)))
}

/// Lets this process run ahead of all that is not real-time, or among them. Its children are always
/// among them.
pub(crate) fn run_ahead(ahead: bool) -> io::Result<()> {
    let (policy, sched_priority) = match ahead {
        true => (libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1),
        false => (libc::SCHED_OTHER, 0),
    };
    let parameters = libc::sched_param { sched_priority };
    // SAFETY: `parameters` lives through the call, which reads it only.
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// Makes the cgroup this process is in the top of all that it and its children see of cgroups.
pub(crate) fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: a cgroup namespace changes how paths of cgroups read, and nothing of this process's
    // memory or descriptors.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWCGROUP) }?)
}

/// What a new process does between fork and exec, beyond what [`Command`] can be told.
#[derive(Debug)]
pub(crate) struct BeforeExec {
    /// Where the process must be before it is anybody.
    pub(crate) enclosure: Option<Enclosure>,
    /// Make standard input the controlling terminal of the new session.
    pub(crate) terminal: bool,
    /// Groups, group and user to become, in this order.
    pub(crate) become_user: Option<(Vec<Gid>, Gid, Uid)>,
}

/// Arranges that the process leads a new session and becomes its user.
pub(crate) fn prepare(command: &mut Command, before: BeforeExec) {
    let run = move || -> io::Result<()> {
        if let Some(enclosure) = &before.enclosure {
            enclosure.enter()?;
        }
        unblock_signals()?;
        rustix::process::setsid()?;
        if before.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        if let Some((groups, gid, uid)) = &before.become_user {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only; it allocates nothing and
    // takes no lock. The new process has one thread, so changing the identity of the thread changes
    // that of the process.
    unsafe { command.pre_exec(run) };
}

/// A new process inherits the signals its parent blocks, and a shell that never hears of its
/// children waits for ever.
fn unblock_signals() -> io::Result<()> {
    // SAFETY: an all-zero sigset_t is a valid value, which sigemptyset then sets up properly; it
    // lives through both calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&raw mut none))?;
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const none,
            std::ptr::null_mut(),
        ))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
