/* SPDX-License-Identifier: MIT */
/*
 * A guest that touches known pages, and no others, for ever: those in its table, in order. Letters:
 *
 *	F   every page of its memory has been written; from now on only the table counts
 *	k   it has gone through the table some times more
 *
 * tests/e2e/tiny_guest.py puts the sizes and the table in. An entry is an address and what to do with
 * it: 1 read a word there, 2 write one, 4 call it (every page begins with a `ret`); the last one is 0.
 * Besides, there are the page of this code, the table's page, and the stack's.
 */
	.code32
	.equ com1, 0x3f8
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
	mov $'F', %bl
	call say

again:
	mov $4096, %ebp                        /* so many passes for one letter */
2:	mov $table, %esi
3:	lodsl
	test %eax, %eax
	jz 6f
	mov %eax, %edi
	lodsl
	cmp $2, %eax
	je 4f
	ja 5f
	mov (%edi), %ecx
	jmp 3b
4:	mov %ecx, (%edi)
	jmp 3b
5:	call *%edi
	jmp 3b
6:	dec %ebp
	jnz 2b
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
