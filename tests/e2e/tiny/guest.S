/* SPDX-License-Identifier: MIT */
/*
 * A guest of a few hundred bytes that boots at once, fills memory and checks it for ever: a
 * multiboot kernel for `qemu-system-x86_64 -kernel`. It writes one letter to the first serial port
 * for each thing that it has done:
 *
 *	F   the fixed part is filled, with numbers that do not compress
 *	.   the changing part was as the last pass left it, and has been written anew
 *	k   the fixed part is as it was filled
 *	X   memory is wrong; it stops
 *
 * tests/e2e/tiny_guest.py puts the sizes in.
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
base:   .long 0                                /* of the fixed part */
fixed:  .long 0                                /* words of 4 bytes */
moving: .long 0                                /* words of the part that changes, behind it */

_start:
	mov $0x80000, %esp                     /* a stack, in memory that is free */
	mov $0x2545f491, %eax
	mov base, %edi
	mov fixed, %ecx
1:	call next
	mov %eax, (%edi)
	add $4, %edi
	dec %ecx
	jnz 1b
	mov %edi, %esi                         /* esi: where the changing part begins */
	mov moving, %ecx
2:	mov %edi, (%edi)                       /* pass 0: its own address */
	add $4, %edi
	dec %ecx
	jnz 2b
	mov $'F', %bl
	call say
	xor %ebp, %ebp                         /* ebp: the pass */

again:
	mov %esi, %edi
	mov moving, %ecx
3:	mov %edi, %edx
	xor %ebp, %edx
	cmp (%edi), %edx
	jne wrong
	lea 1(%ebp), %edx
	xor %edi, %edx
	mov %edx, (%edi)
	add $4, %edi
	dec %ecx
	jnz 3b
	inc %ebp
	mov $'.', %bl
	call say
	test $7, %ebp
	jnz again

	mov $0x2545f491, %eax
	mov base, %edi
	mov fixed, %ecx
4:	call next
	cmp (%edi), %eax
	jne wrong
	add $4, %edi
	dec %ecx
	jnz 4b
	mov $'k', %bl
	call say
	jmp again

wrong:
	mov $'X', %bl
	call say
5:	hlt
	jmp 5b

/* eax: the next number (xorshift). */
next:
	mov %eax, %edx
	shl $13, %edx
	xor %edx, %eax
	mov %eax, %edx
	shr $17, %edx
	xor %edx, %eax
	mov %eax, %edx
	shl $5, %edx
	xor %edx, %eax
	ret

	.balign 4096                           /* a page that holds nothing but code */
say:
	mov %al, %bh
	mov $com1, %dx
	mov %bl, %al
	out %al, %dx
	mov %bh, %al
	ret
	.balign 4
end:
