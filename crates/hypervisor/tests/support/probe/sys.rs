//! What touches the machine: the way in, ports, memory by address, and the functions that compiled code calls.
//!
//! The guest is alone in its machine, its first 4 GiB are mapped to themselves, and nothing is freed. Functions
//! that take addresses are given those of [`crate::map`] and of device registers only.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

global_asm!(include_str!("boot.s"));

pub fn out8(port: u16, value: u8) {
    // SAFETY: ports are devices of the VMM; none of them changes memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) }
}

pub fn in8(port: u16) -> u8 {
    let value;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) }
    value
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        pub fn $read(address: u64) -> $type {
            // SAFETY: see the head of this file.
            unsafe { (address as *const $type).read_volatile() }
        }

        pub fn $write(address: u64, value: $type) {
            // SAFETY: see the head of this file.
            unsafe { (address as *mut $type).write_volatile(value) }
        }
    };
}

access!(read8, write8, u8);
access!(read16, write16, u16);
access!(read32, write32, u32);
access!(read64, write64, u64);

/// Keeps the order of memory accesses that a device sees.
pub fn fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Lets the processor know that this is a loop of waiting.
pub fn relax() {
    core::hint::spin_loop();
}

#[unsafe(no_mangle)]
extern "C" fn probe_main() -> ! {
    crate::run()
}

#[unsafe(no_mangle)]
extern "C" fn probe_second() -> ! {
    crate::second::run()
}

unsafe extern "C" {
    static second_start: u8;
    static second_end: u8;
}

/// Puts the code that a second processor starts with at `address`, a page below 1 MiB.
pub fn place_second(address: u64) {
    let (start, end) = (&raw const second_start, &raw const second_end);
    for at in 0..end as usize - start as usize {
        // SAFETY: `boot.s` has code between the two.
        write8(address + at as u64, unsafe { start.add(at).read() });
    }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    crate::serial::print(b"probe: panic\n");
    crate::power_off()
}

// What the compiler calls for copies; loops written in Rust would be turned into calls of themselves.

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller gives `count` readable and as many writable bytes.
    unsafe {
        asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize) <= from as usize {
        // SAFETY: forward copies are right when the target lies below.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: as above, backwards; the direction flag is cleared again.
    unsafe {
        asm!(
            "std", "rep movsb", "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _,
            options(nostack)
        );
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller gives `count` writable bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8, options(nostack));
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for at in 0..count {
        // SAFETY: the caller gives `count` readable bytes on both sides.
        let (x, y) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: as for `memcmp`.
    unsafe { memcmp(a, b, count) }
}

/// Named by tables of the core library; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
