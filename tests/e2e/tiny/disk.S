/* SPDX-License-Identifier: MIT */
/*
 * A guest that writes to a disk: like guest.S, but it writes sectors to the IDE disk of bus ide.0 for
 * ever, one in every 4 KiB of its first 8 MiB, in order. Letters:
 *
 *	F   the fixed part is filled, with numbers that do not compress
 *	.   an eighth of the 8 MiB has been written
 *	k   all of it has been written, and the fixed part is as it was filled
 *	X   memory is wrong, or the disk gave an error; it stops
 *
 * tests/e2e/tiny_guest.py puts the sizes in.
 */
	.code32
	.equ com1, 0x3f8
	.equ ide_data, 0x1f0
	.equ ide_count, 0x1f2
	.equ ide_command, 0x1f7                /* reading it: the status */
	.equ busy, 0x80
	.equ wants_data, 0x08
	.equ failed, 0x21
	.equ sectors, 16384
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
moving: .long 0                                /* not used */

_start:
	mov $0x80000, %esp                     /* a stack, in memory that is free */
	cld
	mov $0x2545f491, %eax
	mov base, %edi
	mov fixed, %ecx
1:	call next
	mov %eax, (%edi)
	add $4, %edi
	dec %ecx
	jnz 1b
	mov $'F', %bl
	call say

again:
	xor %ebp, %ebp                         /* ebp: the sector */
2:	call write_sector
	add $8, %ebp
	test $(sectors / 8 - 1), %ebp
	jnz 2b
	mov $'.', %bl
	call say
	cmp $sectors, %ebp
	jb 2b

	mov $0x2545f491, %eax
	mov base, %edi
	mov fixed, %ecx
3:	call next
	cmp (%edi), %eax
	jne wrong
	add $4, %edi
	dec %ecx
	jnz 3b
	mov $'k', %bl
	call say
	jmp again

wrong:
	mov $'X', %bl
	call say
4:	hlt
	jmp 4b

/* Writes what stands at base to sector ebp, and waits until the disk has it. */
write_sector:
	call wait_disk
	mov $ide_count, %dx
	mov $1, %al
	out %al, %dx
	mov %ebp, %eax
	inc %dx
	out %al, %dx                           /* its number, from the lowest byte on */
	shr $8, %eax
	inc %dx
	out %al, %dx
	shr $8, %eax
	inc %dx
	out %al, %dx
	inc %dx
	mov $0xe0, %al                         /* linear, the first disk */
	out %al, %dx
	inc %dx
	mov $0x30, %al                         /* WRITE SECTORS */
	out %al, %dx
5:	call wait_disk
	test $wants_data, %al
	jz 5b
	mov $ide_data, %dx
	mov base, %esi
	mov $128, %ecx
	rep outsl
	/* Fall through. */

/* al: the status, once the disk is not busy. */
wait_disk:
	mov $ide_command, %dx
6:	in %dx, %al
	test $busy, %al
	jnz 6b
	test $failed, %al
	jnz wrong
	ret

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

say:
	mov $com1, %dx
	mov %bl, %al
	out %al, %dx
	ret
	.balign 4
end:
