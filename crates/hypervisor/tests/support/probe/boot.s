# Ways into the guest, for `sys.rs`.
#
# Rights of ring 0 are left in the first instructions: hosts that run guests without help of the processor emulate
# ring 0 and run ring 3 natively. Tables are data, so no time is spent on making them. The first processor comes in
# 32-bit mode by the PVH note, or in 64-bit mode by the ELF entry point; the second one in real mode, in a copy of
# `second_start` below 1 MiB, whenever it is given work.

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
    .long first
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
    mov rax, offset first
    push rax
    retfq

first:
    mov edi, 0x28
    mov rsi, offset stack_top
    mov rdx, offset probe_main
    jmp leave_ring0

second:
    mov edi, 0x38
    mov rsi, offset second_stack_top
    mov rdx, offset probe_second

# Goes on at RDX in ring 3 with the stack RSI; EDI selects the processor's descriptor of the task state.
leave_ring0:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, offset tss
    mov [gdt + rdi + 2], ax
    shr eax, 16
    mov [gdt + rdi + 4], al
    mov [gdt + rdi + 7], ah
    mov byte ptr [gdt + rdi + 5], 0x89  # not busy, whoever had it before
    ltr di
    mov rsp, rsi
    mov rax, 0x23
    push rax
    lea rax, [rsi - 8]
    push rax
    mov rax, 2
    push rax
    mov rax, 0x1b
    push rax
    push rdx
    iretq

# Straight from real mode to 64-bit code. What it names is either in the copy or below 4 GiB.
    .code16
    .global second_start, second_end
second_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16    # lgdt with a base of 32 bits
    .word second_gdt_pointer - second_start
    mov eax, 0x620
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80000013
    mov cr0, eax
    .byte 0x66, 0xea
    .long second
    .word 0x08
second_gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
second_end:
    .code64

    .align 16
gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 08: code, ring 0
    .quad 0x00cf93000000ffff    # 10: data, ring 0
    .quad 0x00affb000000ffff    # 18: code, ring 3
    .quad 0x00cff3000000ffff    # 20: data, ring 3
    .quad 0x0000890000002068    # 28: task state of the first processor; its base is filled in
    .quad 0
    .quad 0x0000890000002068    # 38: of the second one
    .quad 0
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .quad gdt

    # Task state whose I/O map, all zero, allows ring 3 every port. Nothing else of it is used, so it is one for both.
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
    .zero 16384
second_stack_top:
    .text
