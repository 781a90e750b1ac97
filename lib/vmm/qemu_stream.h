/* SPDX-License-Identifier: MIT */
/*
 * QEMU's migration stream: the numbers of the wire, and a decoder of what `migrate` sends. The
 * decoder does no I/O: it is fed bytes and hands out what they mean. Input is untrusted.
 *
 * Grammar (big endian; QEMU 7.2 to 10, x86, no capability that changes the pages):
 *
 *   stream   = "QEVM" u32=3 [07 configuration] section*
 *   section  = 01 START | 04 FULL : u32 id, u8 len idstr, u32 instance, u32 version, body, footer
 *            | 02 PART  | 03 END  : u32 id, body, footer
 *            | 08 COMMAND         : u16 command, u16 length, data
 *            | 00 EOF, then 06 VMDESC u32 len JSON
 *   footer   = 7e u32 id                                (a stream without is -ENOTSUP)
 *   ram body = u64 words (address | flags) until EOS
 *
 * Of the sections only RAM's are understood. From the first device section (FULL) on everything is
 * the device state, kept as it is; its end is found from the end of the stream.
 */
#ifndef ROUSE_VMM_QEMU_STREAM_H
#define ROUSE_VMM_QEMU_STREAM_H

#include <rouse.h>

#define QEMU_VM_FILE_MAGIC 0x5145564du
#define QEMU_VM_FILE_VERSION 3u
#define QEMU_VM_EOF 0x00
#define QEMU_VM_SECTION_START 0x01
#define QEMU_VM_SECTION_PART 0x02
#define QEMU_VM_SECTION_END 0x03
#define QEMU_VM_SECTION_FULL 0x04
#define QEMU_VM_SUBSECTION 0x05
#define QEMU_VM_VMDESCRIPTION 0x06
#define QEMU_VM_CONFIGURATION 0x07
#define QEMU_VM_COMMAND 0x08
#define QEMU_VM_SECTION_FOOTER 0x7e

#define QEMU_RAM_VERSION 4u
#define QEMU_RAM_ZERO 0x02u
#define QEMU_RAM_MEM_SIZE 0x04u
#define QEMU_RAM_PAGE 0x08u
#define QEMU_RAM_EOS 0x10u
#define QEMU_RAM_CONTINUE 0x20u
#define QEMU_PAGE_BYTES 4096u
#define QEMU_PAGE_MASK (~(uint64_t)4095)

enum qemu_command {
	QEMU_CMD_OPEN_RETURN_PATH = 1,
	QEMU_CMD_PING = 2,
	QEMU_CMD_POSTCOPY_ADVISE = 3,
	QEMU_CMD_POSTCOPY_LISTEN = 4,
	QEMU_CMD_POSTCOPY_RUN = 5,
	QEMU_CMD_POSTCOPY_DISCARD = 6,
	QEMU_CMD_PACKAGED = 7,
	QEMU_CMD_POSTCOPY_RESUME = 9,
	QEMU_CMD_RECV_BITMAP = 10,
	QEMU_CMD_SWITCHOVER_START = 11,
};

#define QEMU_PACKAGED_MAX (16u << 20)

enum qemu_reply {
	QEMU_REPLY_SHUT = 1,
	QEMU_REPLY_PONG = 2,
	QEMU_REPLY_REQ_PAGES_ID = 3,
	QEMU_REPLY_REQ_PAGES = 4,
	QEMU_REPLY_RECV_BITMAP = 5,
	QEMU_REPLY_RESUME_ACK = 6,
	QEMU_REPLY_SWITCHOVER_ACK = 7,
};

#define QEMU_STREAM_MAX_BLOCKS 1024u
#define QEMU_STREAM_MAX_DEVICES (256u << 20)

/** A RAM block as MEM_SIZE lists it. */
struct qemu_block {
	char name[256];
	uint64_t used_bytes;
	uint64_t first_page; /* page number over all blocks */
};

/** What the decoder says, in the order of the stream. A negative return stops it with that code. */
struct qemu_stream_ops {
	/** The list of RAM blocks; they stay valid as long as the decoder. Once, before any page.
	 */
	int (*blocks)(void *user, const struct qemu_block *blocks, uint32_t count);
	/** A page: @data has QEMU_PAGE_BYTES and is valid during the call only. NULL: zeros. */
	int (*page)(void *user, uint64_t page, const void *data);
};

struct qemu_stream;

/** Free with qemu_stream_free(). -ENOMEM. */
int qemu_stream_new(const struct qemu_stream_ops *ops, void *user, struct qemu_stream **stream);
void qemu_stream_free(struct qemu_stream *stream);

/**
 * Feeds the next bytes, all of which are used. 0; -EUCLEAN: not a migration stream, or damaged;
 * -ENOTSUP: something that Rouse does not handle (named in @error: a compressed page, a section of
 * another device before RAM's end, sections without footers); -EFBIG: device state beyond the
 * limit; -ENOMEM; what ops gave.
 */
int qemu_stream_feed(
	struct qemu_stream *stream, const void *bytes, size_t size, struct rouse_error *error);

/** The stream has ended. -EUCLEAN: too early. Afterwards the parts below are there. */
int qemu_stream_end(struct qemu_stream *stream, struct rouse_error *error);

/** The configuration section as it was, with its type byte; *size 0 if there was none. */
const void *qemu_stream_config(const struct qemu_stream *stream, size_t *size);
/** The machine's name out of the configuration section, e.g. "pc-i440fx-7.2"; or "". */
const char *qemu_stream_machine(const struct qemu_stream *stream);
/** The device sections as they were, without EOF and VMDESC. */
const void *qemu_stream_devices(const struct qemu_stream *stream, size_t *size);

#endif
