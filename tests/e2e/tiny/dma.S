/* SPDX-License-Identifier: MIT */
/*
 * A guest whose memory is touched by a device: like guest.S, but it lets fw_cfg's DMA write to one
 * page after the other, for ever. QEMU does that while it holds its big lock: if the page is
 * missing, its main loop and its ordinary monitor stand still until the page comes.
 *
 *	F   every page has its number at byte 8
 *	k   every page had its number and took what the device wrote
 *	X   memory is wrong; it stops
 */
	.code32
	.equ com1, 0x3f8
	.equ dma_high, 0x514                   /* fw_cfg: address of the request, big endian */
	.equ dma_low, 0x518
	.equ select_read, 0x0a                 /* control: select item 0 (its signature), read it */
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
1:	mov %edi, 8(%edi)
	add $4096, %edi
	cmp %esi, %edi
	jb 1b
	mov $'F', %bl
	call say

again:
	mov base, %edi
2:	mov %edi, %eax
	bswap %eax
	mov %eax, request + 12                 /* where the device writes to */
	mov $request, %eax
	bswap %eax
	xchg %eax, %ecx
	xor %eax, %eax
	mov $dma_high, %dx
	out %eax, %dx
	mov %ecx, %eax
	mov $dma_low, %dx
	out %eax, %dx                          /* QEMU does it before this ends */
	cmpl $0x554d4551, (%edi)               /* "QEMU" */
	jne wrong
	movl $0, (%edi)
	cmp %edi, 8(%edi)
	jne wrong
	movl $((select_read) << 24), request   /* the device has cleared it */
	add $4096, %edi
	cmp %esi, %edi
	jb 2b
	mov $'k', %bl
	call say
	jmp again

wrong:
	mov $'X', %bl
	call say
3:	hlt
	jmp 3b

say:
	mov $com1, %dx
	mov %bl, %al
	out %al, %dx
	ret

	.balign 16
request:                                       /* big endian: control, length, address */
	.long (select_read) << 24
	.long 4 << 24
	.long 0, 0
end:
