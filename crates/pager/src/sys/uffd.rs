//! The ioctls and messages of userfaultfd, from `include/uapi/linux/userfaultfd.h`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Bytes;

/// Type of all its ioctls.
const TYPE: u64 = 0xAA;

/// The formula of `_IOC`: direction, size, type, number.
const fn opcode(direction: u64, number: u64, size: usize) -> u64 {
    (direction << 30) | ((size as u64) << 16) | (TYPE << 8) | number
}
const READ: u64 = 2;
const READ_WRITE: u64 = 3;

pub(crate) const UFFDIO_API: u64 = opcode(READ_WRITE, 0x3F, size_of::<Api>());
pub(crate) const UFFDIO_REGISTER: u64 = opcode(READ_WRITE, 0x00, size_of::<Register>());
pub(crate) const UFFDIO_UNREGISTER: u64 = opcode(READ, 0x01, size_of::<Range>());
pub(crate) const UFFDIO_WAKE: u64 = opcode(READ, 0x02, size_of::<Range>());
pub(crate) const UFFDIO_COPY: u64 = opcode(READ_WRITE, 0x03, size_of::<Copy>());
pub(crate) const UFFDIO_ZEROPAGE: u64 = opcode(READ_WRITE, 0x04, size_of::<Fill>());
pub(crate) const UFFDIO_POISON: u64 = opcode(READ_WRITE, 0x08, size_of::<Fill>());

const _: () = assert!(UFFDIO_API == 0xC018_AA3F && UFFDIO_REGISTER == 0xC020_AA00);
const _: () = assert!(UFFDIO_UNREGISTER == 0x8010_AA01 && UFFDIO_WAKE == 0x8010_AA02);
const _: () = assert!(UFFDIO_COPY == 0xC028_AA03 && UFFDIO_ZEROPAGE == 0xC020_AA04);
const _: () = assert!(UFFDIO_POISON == 0xC020_AA08 && MESSAGE_WORDS * 8 == 32);

/// `USERFAULTFD_IOC_NEW` on `/dev/userfaultfd`.
const USERFAULTFD_IOC_NEW: u64 = 0xAA00;
const UFFD_API_VERSION: u64 = 0xAA;
pub(crate) const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
/// Linux 6.6.
pub(crate) const UFFD_FEATURE_POISON: u64 = 1 << 14;
#[cfg(feature = "fake")]
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

/// Flags of a new descriptor.
const NEW_FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMOVE: u8 = 0x15;
/// Faults on pages that are there: write protection and minor faults.
const FLAGS_NOT_MISSING: u64 = 0b110;

/// Words of one message.
pub(crate) const MESSAGE_WORDS: usize = 4;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

/// Argument of UFFDIO_ZEROPAGE and UFFDIO_POISON.
#[repr(C)]
struct Fill {
    range: Range,
    mode: u64,
    filled: i64,
}

/// What a message says. Addresses are those of the faulting process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// A thread waits for the missing page at this address.
    Missing(u64),
    /// The pages in `start..end` are being given back.
    Removed { start: u64, end: u64 },
    /// Something that was not asked for.
    Unexpected(String),
}

impl Message {
    /// Decodes the words of a message; `None` for a slot without one. A descriptor that came with it is closed.
    pub(crate) fn decode(words: [u64; MESSAGE_WORDS]) -> Option<Self> {
        let [head, first, second, _] = words;
        // The event is the first byte, and x86 and Arm hosts are little-endian.
        Some(match head.to_le_bytes()[0] {
            0 => return None,
            EVENT_PAGEFAULT if first & FLAGS_NOT_MISSING == 0 => Self::Missing(second),
            EVENT_PAGEFAULT => Self::Unexpected(format!("a fault with flags {first:#x}")),
            EVENT_REMOVE => Self::Removed {
                start: first,
                end: second,
            },
            EVENT_FORK => Self::Unexpected("an event of a forked process".into()),
            other => Self::Unexpected(format!("event {other:#x}")),
        })
    }
}

/// How far a call got, and why it stopped short.
#[derive(Debug)]
pub(crate) struct Filled {
    /// Bytes filled from the start of the range on.
    pub(crate) bytes: u64,
    /// Why there are not more; `None` also if it has to be called again to find out.
    pub(crate) stop: Option<Stop>,
}

/// Why a range was not filled to its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The next page is there already.
    Exists,
    /// Pages are being removed: events must be read before anything can be filled.
    Busy,
    /// The process is ending.
    Gone,
    /// The kernel is short of memory.
    NoMemory,
    /// The bytes to copy cannot be read.
    Unreadable,
    /// The range is not registered, or not mapped.
    Refused(io::Error),
}

/// A userfaultfd, ours or another process's.
#[derive(Debug)]
pub(crate) struct Uffd(OwnedFd);

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Uffd {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Uffd {
    /// A new userfaultfd of this process, from `/dev/userfaultfd` (Linux 6.1), which its file mode guards.
    pub(crate) fn by_device() -> io::Result<Self> {
        let mut options = std::fs::OpenOptions::new();
        let device = options.read(true).write(true).open("/dev/userfaultfd")?;
        // SAFETY: the device's only ioctl takes flags by value and touches no memory.
        let raw = unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, NEW_FLAGS) };
        Self::made(raw)
    }

    /// The same by the system call, which is for privileged processes unless the host says otherwise.
    pub(crate) fn by_call() -> io::Result<Self> {
        // SAFETY: the call takes flags by value and touches no memory.
        Self::made(unsafe { libc::syscall(libc::SYS_userfaultfd, NEW_FLAGS) as RawFd })
    }

    fn made(raw: RawFd) -> io::Result<Self> {
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us, so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Asks for features, once, and learns which ones the kernel has.
    pub(crate) fn agree(&self, features: u64) -> io::Result<u64> {
        let mut api = Api {
            api: UFFD_API_VERSION,
            features,
            ioctls: 0,
        };
        self.call(UFFDIO_API, &mut api)?;
        Ok(api.features)
    }

    /// A new userfaultfd of this process that reports removals, as Firecracker makes it.
    #[cfg(feature = "fake")]
    pub(crate) fn create() -> io::Result<Self> {
        let uffd = Self::by_device().or_else(|_| Self::by_call())?;
        uffd.agree(UFFD_FEATURE_EVENT_REMOVE)?;
        Ok(uffd)
    }

    /// Has missing pages of a range of this process reported.
    #[cfg(feature = "fake")]
    pub(crate) fn register(&self, start: u64, len: u64) -> io::Result<()> {
        let mut register = Register {
            range: Range { start, len },
            mode: UFFDIO_REGISTER_MODE_MISSING,
            ioctls: 0,
        };
        self.call(UFFDIO_REGISTER, &mut register)
    }

    /// Stops reporting: missing pages of the range are zero from now on, without anybody being asked.
    pub(crate) fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        self.call(UFFDIO_UNREGISTER, &mut Range { start, len })
    }

    /// Lets threads that wait in the range try again.
    pub(crate) fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        self.call(UFFDIO_WAKE, &mut Range { start, len })
    }

    /// Fills missing pages from `address` on and wakes who waits for them.
    pub(crate) fn copy(&self, address: u64, bytes: &Bytes<'_>) -> Filled {
        let mut copy = Copy {
            dst: address,
            src: bytes.address(),
            len: bytes.len() as u64,
            mode: 0,
            copy: 0,
        };
        let result = self.call(UFFDIO_COPY, &mut copy);
        filled(result, copy.copy)
    }

    /// Makes missing pages of the range zero and wakes who waits for them.
    pub(crate) fn zero(&self, start: u64, len: u64) -> Filled {
        self.fill(UFFDIO_ZEROPAGE, start, len)
    }

    /// Makes each access to missing pages of the range fail with SIGBUS (Linux 6.6).
    pub(crate) fn poison(&self, start: u64, len: u64) -> Filled {
        self.fill(UFFDIO_POISON, start, len)
    }

    /// Reads messages into `slots`, which outlive this process; never waits. The number read may be zero.
    ///
    /// Nobody may trust the mode of the descriptor, since the VMM has it too and can change it any time.
    pub(crate) fn read(&self, slots: &[[AtomicU64; MESSAGE_WORDS]]) -> io::Result<usize> {
        let vector = libc::iovec {
            iov_base: slots.as_ptr().cast_mut().cast(),
            iov_len: size_of_val(slots),
        };
        // SAFETY: the kernel writes at most `iov_len` bytes into memory that is made of atomics, so it may change
        // behind shared references, and that lives until after the call.
        let read = unsafe { libc::preadv2(self.0.as_raw_fd(), &vector, 1, -1, libc::RWF_NOWAIT) };
        let read = match read {
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    // Before Linux 6.10. The descriptor was made non-blocking when it came.
                    // SAFETY: as above.
                    unsafe { libc::read(self.0.as_raw_fd(), vector.iov_base, vector.iov_len) }
                }
                error => return would_block(error),
            },
            read => read,
        };
        let Ok(read) = usize::try_from(read) else {
            return would_block(io::Error::last_os_error());
        };
        let count = read / (MESSAGE_WORDS * 8);
        for slot in &slots[..count] {
            close_forked(slot);
        }
        Ok(count)
    }

    fn fill(&self, opcode: u64, start: u64, len: u64) -> Filled {
        let mut fill = Fill {
            range: Range { start, len },
            mode: 0,
            filled: 0,
        };
        let result = self.call(opcode, &mut fill);
        filled(result, fill.filled)
    }

    /// Calls `opcode`, whose argument is a `T`; this module's constants are made from the sizes of these types.
    fn call<T>(&self, opcode: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: the argument has the type that the opcode was made for, and the kernel touches nothing else of
        // this process: the addresses in it are checked against the other process, or, for the source of a copy,
        // borrowed by the caller and read with faults caught.
        let result =
            unsafe { libc::ioctl(self.0.as_raw_fd(), opcode, std::ptr::from_mut(argument)) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

fn would_block(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

/// A fork event brings a descriptor with it. Nobody asked for these events but a VMM that means harm.
fn close_forked(slot: &[AtomicU64; MESSAGE_WORDS]) {
    if slot[0].load(Ordering::Relaxed).to_le_bytes()[0] != EVENT_FORK {
        return;
    }
    let raw = slot[1].load(Ordering::Relaxed) as u32 as RawFd;
    // SAFETY: the kernel made this descriptor for the reader of the event, and only this function takes it.
    drop(unsafe { OwnedFd::from_raw_fd(raw) });
}

/// The field is what was filled, or the negative error if that is nothing.
fn filled(result: io::Result<()>, field: i64) -> Filled {
    let bytes = u64::try_from(field).unwrap_or(0);
    let stop = match result {
        Ok(()) => None,
        // Called again from there, it says why it stopped.
        Err(_) if bytes > 0 => None,
        Err(error) => Some(match error.raw_os_error() {
            Some(libc::EEXIST) => Stop::Exists,
            Some(libc::EAGAIN) => Stop::Busy,
            Some(libc::ESRCH) => Stop::Gone,
            Some(libc::ENOMEM) => Stop::NoMemory,
            Some(libc::EFAULT) => Stop::Unreadable,
            _ => Stop::Refused(error),
        }),
    };
    Filled { bytes, stop }
}
