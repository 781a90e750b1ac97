/* SPDX-License-Identifier: MIT */
/*
 * touch.S in long mode, with page tables. All memory is mapped where it is, by pages of 4 KiB. There
 * are two address spaces: A, and B, which it enters once in each pass to read one word that A does
 * not map. Both share the upper half, as those of Linux do, in which it reads a word too.
 *
 *	0x10000  A: level 4      0x34000  B: level 4                      0x37000  upper half: level 3
 *	0x11000     level 3      0x35000     level 3, [0] A's level 2     0x38000     level 2
 *	0x12000     level 2      0x36000     level 2, for 1 GiB on
 *	0x13000     level 1, one page for 2 MiB
 */
	.code32
	.equ com1, 0x3f8
	.equ only_in_b, 0x40005000             /* there: 32 MiB + 0x5000, by a large page */
	.equ at_32_mib, 0x02000083
	.equ at_34_mib, 0x02200083             /* in the upper half, + 0x7000 */
	.equ idt, 0x40000
	.text
	.globl _start
header:
	.long 0x1badb002                       /* multiboot: magic, flags, checksum */
	.long 0x00010000                       /* the addresses below count */
	.long -(0x1badb002 + 0x00010000)
	.long header, header, end, end, _start
	/* What tiny_guest.py fills in: at byte 32. */
base:   .long 0                                /* of the pages */
fixed:  .long 0                                /* words of 4 bytes */
moving: .long 0                                /* likewise, behind it */

_start:
	mov $0x80000, %esp                     /* a stack, in memory that is free */
	mov fixed, %esi
	add moving, %esi
	shl $2, %esi
	add base, %esi                         /* esi: the end */
	mov base, %edi
1:	movb $0xc3, (%edi)                     /* ret */
	add $4096, %edi
	cmp %esi, %edi
	jb 1b

	xor %eax, %eax
	mov $0x10000, %edi
	mov $(0x29000 / 4), %ecx
	rep stosl
	movl $0x11003, 0x10000
	movl $0x37003, 0x10000 + 511 * 8
	movl $0x12003, 0x11000
	movl $0x35003, 0x34000
	movl $0x37003, 0x34000 + 511 * 8
	movl $0x12003, 0x35000
	movl $0x36003, 0x35000 + 8
	movl $at_32_mib, 0x36000
	movl $0x38003, 0x37000
	movl $at_34_mib, 0x38000
	mov $0x12000, %edi
	mov $0x13003, %eax
2:	mov %eax, (%edi)                       /* 64 MiB: 32 tables of level 1 */
	add $8, %edi
	add $4096, %eax
	cmp $0x33003, %eax
	jb 2b
	mov $0x13000, %edi
	mov $3, %eax
3:	mov %eax, (%edi)
	add $8, %edi
	add $4096, %eax
	cmp $0x33000, %edi
	jb 3b

	mov $0x20, %eax                        /* CR4: PAE */
	mov %eax, %cr4
	mov $0x10000, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx                  /* EFER: long mode */
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000001, %eax
	mov %eax, %cr0
	lidt idt_pointer
	lgdt gdt_pointer
	ljmp $8, $long_mode

	.balign 8
gdt:    .quad 0, 0x00209a0000000000            /* code, 64 bits */
gdt_pointer:
	.word 15
	.long gdt
idt_pointer:
	.word 4095
	.long idt

	.code64
long_mode:
	mov $0xffffff8000007000, %r8
	mov $'F', %bl
	call say
again:
	mov $256, %ebp                         /* so many passes for one letter */
4:	mov $0x34000, %eax
	mov %rax, %cr3
	mov only_in_b, %ecx
	mov $0x10000, %eax
	mov %rax, %cr3
	mov (%r8), %ecx
	mov $table, %esi
5:	lodsl
	test %eax, %eax
	jz 8f
	mov %eax, %edi
	lodsl
	cmp $2, %eax
	je 6f
	ja 7f
	mov (%rdi), %ecx
	jmp 5b
6:	mov %ecx, (%rdi)
	jmp 5b
7:	call *%rdi
	jmp 5b
8:	dec %ebp
	jnz 4b
	mov $'k', %bl
	call say
	jmp again

say:
	mov $com1, %dx
	mov %bl, %al
	out %al, %dx
	ret

	.balign 4096
table:                                         /* at byte 4096 */
	.skip 4096
end:
