/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_writer.h"

#include "base/endian.h"
#include "base/io.h"

#include <errno.h>
#include <sys/socket.h>

/* A page record's header: the word, and with a change of block the name and its length. */
#define RECORD_MAX (8 + 1 + 255 + 1)

void qemu_writer_init(struct qemu_writer *writer, int fd, int cancel_fd,
	const struct qemu_block *blocks, uint32_t block_count)
{
	*writer = (struct qemu_writer){.fd = fd,
		.cancel_fd = cancel_fd,
		.blocks = blocks,
		.block_count = block_count,
		.last_block = UINT32_MAX};
}

static int write_pieces(struct qemu_writer *writer, struct iovec *pieces, int count)
{
	if (writer->broken == 0)
		writer->broken = rouse_io_send(writer->fd, writer->cancel_fd, pieces, count);
	return writer->broken;
}

void qemu_writer_set_buffer(const struct qemu_writer *writer, int bytes)
{
	(void)setsockopt(writer->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int qemu_writer_raw(struct qemu_writer *writer, const void *bytes, size_t size)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};

	return write_pieces(writer, &piece, 1);
}

int qemu_writer_header(struct qemu_writer *writer, const void *config, size_t config_size)
{
	uint8_t magic[8];
	int code;

	be32_store(magic, QEMU_VM_FILE_MAGIC);
	be32_store(magic + 4, QEMU_VM_FILE_VERSION);
	code = qemu_writer_raw(writer, magic, sizeof(magic));
	if (code == 0 && config_size > 0)
		code = qemu_writer_raw(writer, config, config_size);
	return code;
}

size_t qemu_command_put(uint8_t *buffer, enum qemu_command command, const void *data, uint16_t size)
{
	buffer[0] = QEMU_VM_COMMAND;
	be16_store(buffer + 1, (uint16_t)command);
	be16_store(buffer + 3, size);
	if (size > 0)
		memcpy(buffer + 5, data, size);
	return 5 + (size_t)size;
}

int qemu_writer_command(
	struct qemu_writer *writer, enum qemu_command command, const void *data, uint16_t size)
{
	uint8_t buffer[5 + 512];

	if (size > sizeof(buffer) - 5)
		return -EINVAL;
	return qemu_writer_raw(writer, buffer, qemu_command_put(buffer, command, data, size));
}

int qemu_writer_ping(struct qemu_writer *writer, uint32_t value)
{
	uint8_t data[4];

	be32_store(data, value);
	return qemu_writer_command(writer, QEMU_CMD_PING, data, sizeof(data));
}

/* START and FULL sections carry a name; RAM is instance 0. */
static size_t put_section_start(uint8_t *buffer)
{
	size_t used = 0;

	buffer[used++] = QEMU_VM_SECTION_START;
	be32_store(buffer + used, QEMU_WRITER_RAM_SECTION);
	used += 4;
	buffer[used++] = 3;
	memcpy(buffer + used, (const uint8_t[]){'r', 'a', 'm'}, 3);
	used += 3;
	be32_store(buffer + used, 0);
	be32_store(buffer + used + 4, QEMU_RAM_VERSION);
	return used + 8;
}

static size_t put_eos_footer(uint8_t *buffer)
{
	be64_store(buffer, QEMU_RAM_EOS);
	buffer[8] = QEMU_VM_SECTION_FOOTER;
	be32_store(buffer + 9, QEMU_WRITER_RAM_SECTION);
	return 13;
}

int qemu_writer_ram_start(struct qemu_writer *writer)
{
	uint8_t buffer[512];
	size_t used = put_section_start(buffer);
	int code;

	be64_store(buffer + used,
		qemu_blocks_pages(writer->blocks, writer->block_count) * QEMU_PAGE_BYTES |
			QEMU_RAM_MEM_SIZE);
	code = qemu_writer_raw(writer, buffer, used + 8);
	for (uint32_t i = 0; code == 0 && i < writer->block_count; i++) {
		const struct qemu_block *block = &writer->blocks[i];
		size_t length = strlen(block->name);

		buffer[0] = (uint8_t)length;
		memcpy(buffer + 1, block->name, length);
		be64_store(buffer + 1 + length, block->used_bytes);
		code = qemu_writer_raw(writer, buffer, 1 + length + 8);
	}
	if (code < 0)
		return code;
	return qemu_writer_raw(writer, buffer, put_eos_footer(buffer));
}

int qemu_writer_part_begin(struct qemu_writer *writer)
{
	uint8_t buffer[5];

	buffer[0] = QEMU_VM_SECTION_PART;
	be32_store(buffer + 1, QEMU_WRITER_RAM_SECTION);
	return qemu_writer_raw(writer, buffer, sizeof(buffer));
}

int qemu_writer_part_end(struct qemu_writer *writer)
{
	uint8_t buffer[13];

	return qemu_writer_raw(writer, buffer, put_eos_footer(buffer));
}

int qemu_writer_ram_end(struct qemu_writer *writer)
{
	uint8_t buffer[5 + 13];

	buffer[0] = QEMU_VM_SECTION_END;
	be32_store(buffer + 1, QEMU_WRITER_RAM_SECTION);
	return qemu_writer_raw(writer, buffer, 5 + put_eos_footer(buffer + 5));
}

/* The header of one page's record into @record; a zero page's content byte too. Bytes used. */
static size_t put_record(struct qemu_writer *writer, const struct rouse_sink_page *page,
	uint32_t index, uint8_t *record)
{
	const struct qemu_block *block = &writer->blocks[index];
	uint64_t word = (page->page - block->first_page) * QEMU_PAGE_BYTES;
	size_t used = 8;

	word |= page->data != NULL ? QEMU_RAM_PAGE : QEMU_RAM_ZERO;
	if (index == writer->last_block) {
		word |= QEMU_RAM_CONTINUE;
	} else {
		size_t length = strlen(block->name);

		record[used++] = (uint8_t)length;
		memcpy(record + used, block->name, length);
		used += length;
		writer->last_block = index;
	}
	be64_store(record, word);
	if (page->data == NULL)
		record[used++] = 0;
	return used;
}

int qemu_writer_pages(struct qemu_writer *writer, const struct rouse_sink_page *pages, size_t count)
{
	/* Almost every record is 8 or 9 bytes; names are rare: room for a change of block or two.
	 */
	uint8_t records[QEMU_WRITER_BATCH * 9 + 4 * RECORD_MAX];
	struct iovec pieces[2 * QEMU_WRITER_BATCH];
	size_t used = 0;
	int piece = 0;

	for (size_t i = 0; i < count; i++) {
		uint32_t index = writer->last_block;
		size_t length;

		if (index >= writer->block_count ||
			pages[i].page - writer->blocks[index].first_page >=
				writer->blocks[index].used_bytes / QEMU_PAGE_BYTES)
			index = qemu_block_of(writer->blocks, writer->block_count, pages[i].page);
		if (index == writer->block_count)
			return -ERANGE;
		if (sizeof(records) - used < RECORD_MAX) {
			int code = write_pieces(writer, pieces, piece);

			if (code < 0)
				return code;
			used = 0;
			piece = 0;
		}
		length = put_record(writer, &pages[i], index, records + used);
		pieces[piece++] = (struct iovec){.iov_base = records + used, .iov_len = length};
		used += length;
		if (pages[i].data != NULL)
			pieces[piece++] = (struct iovec){
				.iov_base = (void *)(uintptr_t)pages[i].data,
				.iov_len = QEMU_PAGE_BYTES,
			};
	}
	return write_pieces(writer, pieces, piece);
}

uint32_t qemu_block_of(const struct qemu_block *blocks, uint32_t count, uint64_t page)
{
	uint32_t low = 0, high = count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		uint64_t first = blocks[middle].first_page;

		if (page < first)
			high = middle;
		else if (page - first < blocks[middle].used_bytes / QEMU_PAGE_BYTES)
			return middle;
		else
			low = middle + 1;
	}
	return count;
}

uint32_t qemu_block_find(
	const struct qemu_block *blocks, uint32_t count, const char *name, size_t length)
{
	for (uint32_t i = 0; i < count; i++) {
		if (strlen(blocks[i].name) == length && memcmp(blocks[i].name, name, length) == 0)
			return i;
	}
	return count;
}

uint64_t qemu_blocks_pages(const struct qemu_block *blocks, uint32_t count)
{
	uint64_t pages = 0;

	for (uint32_t i = 0; i < count; i++)
		pages += blocks[i].used_bytes / QEMU_PAGE_BYTES;
	return pages;
}
