/* SPDX-License-Identifier: MIT */
/*
 * The sending half of QEMU's migration stream: sections, commands and pages onto a socket.
 * Not thread-safe. Every function returns 0 or -errno of the socket (-EPIPE: QEMU is gone).
 * -ECANCELED: QEMU read nothing, and the cancel descriptor became readable. After a failure a
 * record may be there by half, and QEMU would take what follows for the rest of it: so every later
 * call fails with the same code and writes nothing.
 */
#ifndef ROUSE_VMM_QEMU_WRITER_H
#define ROUSE_VMM_QEMU_WRITER_H

#include "sink/sink.h"
#include "vmm/qemu_stream.h"

/*
 * RAM's section id is the sender's choice and is remembered by QEMU under it, also across a
 * recovery. It must not be one of the device sections' (small numbers).
 */
#define QEMU_WRITER_RAM_SECTION 0x726f7573u /* "rous" */

/** Pages that go out in one system call. */
#define QEMU_WRITER_BATCH 64u

/*
 * Bytes that a socket may hold while nobody is in a hurry: with the kernel's default of some 200
 * KiB sender and QEMU wait for each other.
 */
#define QEMU_WRITER_BULK_BUFFER (1 << 20)

struct qemu_writer {
	int fd;
	int cancel_fd; /* readable: give up; or -1 */
	int broken;    /* the code of the first write that failed, or 0 */
	const struct qemu_block *blocks;
	uint32_t block_count;
	uint32_t last_block; /* of the last page: the next one of it needs no name */
};

/** @cancel_fd: what ends a write for which QEMU makes no room, or -1. */
void qemu_writer_init(struct qemu_writer *writer, int fd, int cancel_fd,
	const struct qemu_block *blocks, uint32_t block_count);

/** Sets how much the socket holds. A hint: a kernel that gives another size changes the speed only.
 */
void qemu_writer_set_buffer(const struct qemu_writer *writer, int bytes);

/** The magic, the version and the configuration section. */
int qemu_writer_header(struct qemu_writer *writer, const void *config, size_t config_size);
int qemu_writer_command(
	struct qemu_writer *writer, enum qemu_command command, const void *data, uint16_t size);
int qemu_writer_ping(struct qemu_writer *writer, uint32_t value);
/** RAM's START section: the list of blocks. */
int qemu_writer_ram_start(struct qemu_writer *writer);
/** Opens a PART section: pages follow until qemu_writer_part_end(). */
int qemu_writer_part_begin(struct qemu_writer *writer);
int qemu_writer_part_end(struct qemu_writer *writer);
/** RAM's END section. */
int qemu_writer_ram_end(struct qemu_writer *writer);
/** At most QEMU_WRITER_BATCH pages, inside a PART section, in one system call if it fits. */
int qemu_writer_pages(
	struct qemu_writer *writer, const struct rouse_sink_page *pages, size_t count);
int qemu_writer_raw(struct qemu_writer *writer, const void *bytes, size_t size);

/** Appends a command to @buffer; returns the bytes used: 5 + @size. */
size_t qemu_command_put(
	uint8_t *buffer, enum qemu_command command, const void *data, uint16_t size);

/** The block of a page number; block_count if there is none. */
uint32_t qemu_block_of(const struct qemu_block *blocks, uint32_t count, uint64_t page);
/** The block of a name of @length bytes; @count if there is none. */
uint32_t qemu_block_find(
	const struct qemu_block *blocks, uint32_t count, const char *name, size_t length);
/** Pages of all blocks. */
uint64_t qemu_blocks_pages(const struct qemu_block *blocks, uint32_t count);

#endif
