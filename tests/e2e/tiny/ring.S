/* SPDX-License-Identifier: MIT */
/*
 * A guest whose memory QEMU touches while it loads the VM's devices: like guest.S, but it has given
 * two rings to a virtio-balloon (the legacy interface), which it never uses. QEMU looks at the rings
 * of a device that it loads: one is in a page that holds something, the other in pages of zeros.
 * Letters:
 *
 *	F   the fixed part is filled, with numbers that do not compress
 *	.   the changing part was as the last pass left it, and has been written anew
 *	k   the fixed part is as it was filled
 *	X   memory is wrong; it stops
 *	?   there is no balloon; it stops
 *
 * tests/e2e/tiny_guest.py puts the sizes in.
 */
	.code32
	.equ com1, 0x3f8
	.equ pci_address, 0xcf8
	.equ pci_data, 0xcfc
	.equ pci_first, 0x80000000             /* bus 0, device 0 */
	.equ pci_end, 0x80010000
	.equ pci_device, 0x800                 /* from one device to the next */
	.equ balloon_id, 0x10021af4
	/* Registers of the legacy interface, from its port on. */
	.equ reg_features, 0x04
	.equ reg_queue, 0x08
	.equ reg_queue_size, 0x0c
	.equ reg_queue_select, 0x0e
	.equ reg_status, 0x12
	.equ entries, 128                      /* of QEMU's queues */
	.equ first_ring, 0x180000              /* in memory that is free */
	.equ second_ring, 0x190000
	.equ available, first_ring + 16 * entries
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
port:   .long 0                                /* of the balloon */

_start:
	mov $0x80000, %esp                     /* a stack, in memory that is free */
	call find_balloon
	call give_rings
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
stop:
	call say
5:	hlt
	jmp 5b

/* ---- The balloon ---- */

/* eax: a word of a device's configuration, at eax. */
pci_read:
	mov $pci_address, %dx
	out %eax, %dx
	mov $pci_data, %dx
	in %dx, %eax
	ret

/* Its port; it may use ports and memory from now on. */
find_balloon:
	mov $pci_first, %ecx
1:	mov %ecx, %eax
	call pci_read
	cmp $balloon_id, %eax
	je 2f
	add $pci_device, %ecx
	cmp $pci_end, %ecx
	jb 1b
	mov $'?', %bl
	jmp stop
2:	lea 0x10(%ecx), %eax                   /* BAR 0 */
	call pci_read
	and $0xfffc, %eax
	mov %eax, port
	lea 0x04(%ecx), %eax                   /* command */
	call pci_read
	or $5, %eax
	out %eax, %dx
	ret

give_rings:
	mov port, %edx
	add $reg_status, %edx
	xor %eax, %eax
	out %al, %dx                           /* reset */
	mov $3, %al
	out %al, %dx                           /* seen, and there is a driver */
	mov port, %edx
	add $reg_features, %edx
	xor %eax, %eax
	out %eax, %dx                          /* none is needed */
	xor %eax, %eax                         /* to inflate */
	mov $first_ring >> 12, %ecx
	call give_ring
	mov $1, %eax                           /* to deflate */
	mov $second_ring >> 12, %ecx
	call give_ring
	movw $1, available                     /* no interrupts: the page is not of zeros */
	mov port, %edx
	add $reg_status, %edx
	mov $7, %al
	out %al, %dx                           /* it is ready */
	ret

/* Queue eax: its ring is at page ecx. */
give_ring:
	mov port, %edx
	add $reg_queue_select, %edx
	out %ax, %dx
	mov port, %edx
	add $reg_queue_size, %edx
	in %dx, %ax
	cmp $entries, %ax
	jne wrong
	mov port, %edx
	add $reg_queue, %edx
	mov %ecx, %eax
	out %eax, %dx
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
