//! Descriptors on fixed numbers, namespaces, TAP devices.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Room for the name of a network device and the zero behind it (`IFNAMSIZ` of linux/if.h).
const NAME_BYTES: usize = 16;

/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);

/// `TUNSETOWNER` of linux/if_tun.h. Its argument is the user itself, not a pointer to it.
const TUNSETOWNER: Opcode = opcode::write::<i32>(b'T', 204);

/// Flags of linux/if_tun.h: whole Ethernet frames, no header of the driver's, but virtio-net's.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// `struct ifreq` of linux/if.h as far as TUNSETIFF looks at it, in its full size.
#[repr(C)]
struct TapRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<TapRequest>() == 40);

/// Makes `tun`, an open `/dev/net/tun`, the end of the TAP device called `name`.
pub(super) fn attach_tap(tun: &OwnedFd, name: &str) -> io::Result<()> {
    let mut request = TapRequest {
        name: [0; NAME_BYTES],
        flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR,
        rest: [0; 22],
    };
    let name = name.as_bytes();
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    request.name[..name.len()].copy_from_slice(name);
    // SAFETY: the kernel reads and writes a `struct ifreq`, which `TapRequest` has the size and layout of.
    let call = unsafe { Updater::<'_, TUNSETIFF, _>::new(&mut request) };
    // SAFETY: as above; the descriptor is a TUN device, so the number means this request.
    Ok(unsafe { ioctl(tun, call) }?)
}

/// Lets `uid` attach to the TAP device that `tun` is attached to.
pub(super) fn own_tap(tun: &OwnedFd, uid: u32) -> io::Result<()> {
    // SAFETY: the kernel takes the argument as a number; the descriptor is a TUN device, so the request means this.
    let call = unsafe { IntegerSetter::<TUNSETOWNER>::new_usize(uid as usize) };
    // SAFETY: as above.
    Ok(unsafe { ioctl(tun, call) }?)
}

/// Moves this process into a mount namespace of its own, a copy of the one it was in.
pub(super) fn new_mount_namespace() -> Result<(), Errno> {
    // SAFETY: a mount namespace changes where paths lead, and nothing of this process's memory or descriptors. Its
    // working directory stays the same one.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
}

/// Moves this process into a new network namespace, in which there is nothing.
pub(super) fn new_network_namespace() -> Result<(), Errno> {
    // SAFETY: a network namespace changes which devices and sockets can be reached by new sockets, and nothing of
    // this process's memory or descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Puts `file` on descriptor `number`, open across exec. `number` must not be in use by anything in this process;
/// the launcher, a fresh process with a single thread, uses numbers far above those it was given.
pub(super) fn place(file: OwnedFd, number: i32) -> io::Result<()> {
    if file.as_raw_fd() == number {
        // Already there, but closed on exec; a duplicate in between lets dup2 clear the flag.
        let moved = file.try_clone()?;
        drop(file);
        return place(moved, number);
    }
    // SAFETY: the number is not owned by anything else in this process (see above), and the value that would
    // close it is given up below before it can be dropped.
    let mut target = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup2(&file, &mut target)?;
    let _ = std::mem::ManuallyDrop::into_inner(target).into_raw_fd();
    Ok(())
}
