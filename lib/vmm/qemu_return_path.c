/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_return_path.h"

#include "base/endian.h"
#include "vmm/qemu_writer.h"

#include <errno.h>

static int parse_name(const uint8_t *data, size_t size, const struct qemu_block *blocks,
	uint32_t block_count, uint32_t *block)
{
	if (size < 1 || size != 1 + (size_t)data[0])
		return -EPROTO;
	*block = qemu_block_find(blocks, block_count, (const char *)data + 1, data[0]);
	return *block < block_count ? 0 : -EPROTO;
}

/* @block: NULL: it is not known. */
static int parse_request(
	const uint8_t *data, const struct qemu_block *block, struct qemu_return_message *message)
{
	const uint64_t start = be64_load(data);
	const uint64_t length = be32_load(data + 8);

	if (start % QEMU_PAGE_BYTES != 0 || length % QEMU_PAGE_BYTES != 0 || length == 0)
		return -EPROTO;
	message->start = start / QEMU_PAGE_BYTES;
	message->page_count = length / QEMU_PAGE_BYTES;
	if (block == NULL)
		return 0;
	if (start >= block->used_bytes || length > block->used_bytes - start)
		return -EPROTO;
	message->page = block->first_page + message->start;
	return 0;
}

static int parse_value(const uint8_t *data, size_t size, struct qemu_return_message *message)
{
	if (size != 4)
		return -EPROTO;
	message->value = be32_load(data);
	return 0;
}

static int parse_data(const uint8_t *data, size_t size, const struct qemu_block *blocks,
	uint32_t block_count, uint32_t *last_block, struct qemu_return_message *message)
{
	int code;

	switch (message->type) {
	case QEMU_REPLY_SHUT:
	case QEMU_REPLY_PONG:
	case QEMU_REPLY_RESUME_ACK:
		return parse_value(data, size, message);
	case QEMU_REPLY_REQ_PAGES_ID:
		if (size < 13)
			return -EPROTO;
		code = parse_name(data + 12, size - 12, blocks, block_count, last_block);
		if (code < 0)
			return code;
		message->block = *last_block;
		return parse_request(data, &blocks[*last_block], message);
	case QEMU_REPLY_REQ_PAGES:
		if (size != 12)
			return -EPROTO;
		message->block = *last_block;
		return parse_request(
			data, *last_block < block_count ? &blocks[*last_block] : NULL, message);
	case QEMU_REPLY_RECV_BITMAP:
		return parse_name(data, size, blocks, block_count, &message->block);
	case QEMU_REPLY_SWITCHOVER_ACK:
		return size == 0 ? 0 : -EPROTO;
	}
	return -EPROTO;
}

int qemu_return_parse(const uint8_t *bytes, size_t size, const struct qemu_block *blocks,
	uint32_t block_count, uint32_t *last_block, struct qemu_return_message *message,
	size_t *used)
{
	size_t length;
	int code;

	if (size < 4)
		return 0;
	length = be16_load(bytes + 2);
	if (4 + length > QEMU_RETURN_MESSAGE_MAX)
		return -EPROTO;
	if (size < 4 + length)
		return 0;
	*message = (struct qemu_return_message){.type = (enum qemu_reply)be16_load(bytes)};
	code = parse_data(bytes + 4, length, blocks, block_count, last_block, message);
	if (code < 0)
		return code;
	*used = 4 + length;
	return 1;
}

bool qemu_reply_is_request(enum qemu_reply type)
{
	return type == QEMU_REPLY_REQ_PAGES || type == QEMU_REPLY_REQ_PAGES_ID;
}
