//! What touches the machine: the way in, ports, memory by address, and the functions that compiled code calls.
//!
//! The guest is alone in its machine, its first 4 GiB are mapped to themselves, and nothing is freed. Functions
//! that take addresses are given those of [`crate::map`] and of device registers only.

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

// Rights of ring 0 are left in the first instructions: hosts that run guests without help of the processor emulate
// ring 0 and run ring 3 natively. Tables are data, so no time is spent on making them. There are two ways in: in
// 32-bit mode by the PVH note, and in 64-bit mode by the ELF entry point.
global_asm!(
    r#"
    .section .note.pvh, "a", @note
    .align 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start

    .section .boot, "awx", @progbits
    .code32
pvh_start:
    cli
    cld
    lgdt [gdt_pointer]
    mov eax, cr4
    or eax, 0x620               # PAE, and SSE for compiled code
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080         # EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0xfffffffb
    or eax, 0x80000003
    mov cr0, eax
    .byte 0xea                  # far jump into 64-bit code
    .long leave_ring0
    .word 0x08

    .code64
    .global start64
start64:
    cli
    cld
    mov rax, cr4
    or rax, 0x620
    mov cr4, rax
    mov rax, offset pml4
    mov cr3, rax
    mov rax, cr0
    and rax, 0xfffffffffffffffb
    or rax, 2
    mov cr0, rax
    lgdt [gdt_pointer]
    mov rsp, offset stack_top
    mov rax, 0x08
    push rax
    mov rax, offset leave_ring0
    push rax
    retfq

leave_ring0:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, offset tss
    mov [gdt_tss + 2], ax
    shr eax, 16
    mov [gdt_tss + 4], al
    mov [gdt_tss + 7], ah
    mov ax, 0x28
    ltr ax
    mov rsp, offset stack_top
    mov rax, 0x23
    push rax
    mov rax, offset stack_top - 8
    push rax
    mov rax, 2
    push rax
    mov rax, 0x1b
    push rax
    mov rax, offset probe_main
    push rax
    iretq

    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 08: code, ring 0
    .quad 0x00cf93000000ffff    # 10: data, ring 0
    .quad 0x00affb000000ffff    # 18: code, ring 3
    .quad 0x00cff3000000ffff    # 20: data, ring 3
gdt_tss:                        # 28: task state; its base is filled in
    .quad 0x0000890000002068
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt

    # Task state whose I/O map, all zero, allows ring 3 every port.
    .align 4096
tss:
    .zero 102
    .word 104
    .zero 8192
    .byte 0xff

    # 4 GiB mapped to themselves in pages of 2 MiB, open to ring 3; the last GiB, where devices are, uncached.
    .align 4096
pml4:
    .quad pdpt + 7
    .zero 4088
pdpt:
    .quad directories + 7
    .quad directories + 0x1007
    .quad directories + 0x2007
    .quad directories + 0x3007
    .zero 4064
directories:
    .set address, 0
    .rept 1536
    .quad address + 0x87
    .set address, address + 0x200000
    .endr
    .rept 512
    .quad address + 0x97
    .set address, address + 0x200000
    .endr

    .section .bss
    .align 4096
    .zero 65536
stack_top:
    .text
"#
);

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
