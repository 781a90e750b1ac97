/* SPDX-License-Identifier: MIT */
/*
 * What a restoring QEMU says back on the migration connection: a parser that does no I/O.
 *
 *   message = u16 type, u16 length, data                                   (big endian)
 *     SHUT             u32: 0 done, else failed
 *     PONG             u32: the PING's number
 *     REQ_PAGES_ID     u64 start, u32 length, u8 n, block name of n bytes
 *     REQ_PAGES        u64 start, u32 length        (the block as last named)
 *     RECV_BITMAP      u8 n, block name; a bitmap follows behind the message:
 *                      u64 size, size bytes (little endian words), u64 end mark
 *     RESUME_ACK       u32: 1
 *     SWITCHOVER_ACK   nothing
 */
#ifndef ROUSE_VMM_QEMU_RETURN_PATH_H
#define ROUSE_VMM_QEMU_RETURN_PATH_H

#include "vmm/qemu_stream.h"

#define QEMU_RETURN_MESSAGE_MAX (4u + 512u)
#define QEMU_RECV_BITMAP_END UINT64_C(0x0123456789abcdef)

struct qemu_return_message {
	enum qemu_reply type;
	uint32_t value;             /* SHUT, PONG, RESUME_ACK */
	uint32_t block;             /* REQ_PAGES*, RECV_BITMAP; UINT32_MAX: none was named */
	uint64_t start, page_count; /* REQ_PAGES*: in pages, from the block's beginning on */
	uint64_t page;              /* the same over all blocks, if one was named */
};

/**
 * The first message among @bytes. 1: there is one, *used bytes long, in *message; 0: it is not
 * complete yet; -EPROTO: not a message, or one about memory that does not exist. @last_block: of
 * the caller, UINT32_MAX at first: the block that was named last. Allocates nothing.
 */
int qemu_return_parse(const uint8_t *bytes, size_t size, const struct qemu_block *blocks,
	uint32_t block_count, uint32_t *last_block, struct qemu_return_message *message,
	size_t *used);

/** Whether it asks for pages. */
bool qemu_reply_is_request(enum qemu_reply type);

#endif
