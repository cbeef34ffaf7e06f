//! Giving up everything that serving pages does not need.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::sys::{
    self, UFFDIO_COPY, UFFDIO_POISON, UFFDIO_UNREGISTER, UFFDIO_WAKE, UFFDIO_ZEROPAGE,
};

/// Three descriptors for each machine, and connections.
const MAX_OPEN_FILES: u64 = 8192;
/// A page for each machine.
const MAX_LOCKED_BYTES: u64 = 64 << 20;

/// Leaves the network and the user, and narrows the system calls to those of the loop. Everything that needs more
/// must have been done. For a process of one thread.
pub(super) fn confine(uid: Option<u32>) -> Result<(), String> {
    set_limits().map_err(named("limit its resources"))?;
    if rustix::process::geteuid().is_root() {
        sys::leave_network().map_err(named("leave the network of the host"))?;
        if let Some(uid) = uid {
            sys::become_user(uid).map_err(named("become the user of its configuration"))?;
        }
    }
    // Others with this user must not look into this process, which holds the memory of machines.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| named("hide its memory")(error.into()))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| named("give up new privileges")(error.into()))?;
    let narrow = named("narrow its system calls, which needs a kernel with seccomp filters");
    let filter = filter().map_err(io::Error::other);
    filter
        .and_then(|filter| seccompiler::apply_filter(&filter).map_err(io::Error::other))
        .map_err(narrow)
}

fn named(deed: &'static str) -> impl FnOnce(io::Error) -> String {
    move |error| format!("a pager cannot {deed}: {error}")
}

fn set_limits() -> io::Result<()> {
    let lower = |resource, most: u64| {
        let now = rustix::process::getrlimit(resource);
        let value = Some(now.maximum.map_or(most, |maximum| maximum.min(most)));
        let limit = Rlimit {
            current: value,
            maximum: value,
        };
        rustix::process::setrlimit(resource, limit)
    };
    // A core would hold guest memory.
    lower(Resource::Core, 0)?;
    lower(Resource::Nofile, MAX_OPEN_FILES)?;
    lower(Resource::Memlock, MAX_LOCKED_BYTES)?;
    Ok(())
}

/// System calls of the loop, of the allocator, and of dying. No file is opened, no socket made, no process started.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pread64,
    libc::SYS_preadv2,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The filter: anything else ends the process, and the supervisor starts another.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let ioctls = [
        UFFDIO_COPY,
        UFFDIO_POISON,
        UFFDIO_UNREGISTER,
        UFFDIO_WAKE,
        UFFDIO_ZEROPAGE,
    ];
    let ioctls = ioctls
        .into_iter()
        .map(|opcode| only_if(1, SeccompCmpOp::Eq, opcode))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    // To itself alone, as abort does: pagers of other images run as the same user.
    let own = u64::from(std::process::id());
    let to_itself = only_if(0, SeccompCmpOp::Eq, own)?;
    rules.insert(libc::SYS_tgkill, vec![to_itself]);
    // Memory for data, never for code.
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let no_code = || only_if(2, SeccompCmpOp::MaskedEq(executable), 0);
    rules.insert(libc::SYS_mmap, vec![no_code()?]);
    rules.insert(libc::SYS_mprotect, vec![no_code()?]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

fn only_if(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    SeccompRule::new(vec![condition])
}
