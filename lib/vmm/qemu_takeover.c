/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_takeover.h"

#include "base/cleanup.h"
#include "base/endian.h"
#include "vmm/qemu_return_path.h"
#include "vmm/qemu_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* For QEMU to say something: a thread of it that waits for that alone does. */
#define SILENCE_MS 30000

int qemu_takeover_request(
	const struct qemu_block *blocks, uint32_t count, uint8_t **bytes, size_t *size)
{
	uint8_t *request = malloc(((size_t)count + 1) * (5 + sizeof(uint8_t) + 255));
	size_t used = 0;

	if (request == NULL)
		return -ENOMEM;
	for (uint32_t i = 0; i < count; i++) {
		size_t length = strlen(blocks[i].name);
		uint8_t data[256];

		data[0] = (uint8_t)length;
		memcpy(data + 1, blocks[i].name, length);
		used += qemu_command_put(
			request + used, QEMU_CMD_RECV_BITMAP, data, (uint16_t)(1 + length));
	}
	used += qemu_command_put(request + used, QEMU_CMD_POSTCOPY_RESUME, NULL, 0);
	*bytes = request;
	*size = used;
	return 0;
}

/* All of @size bytes. -EPIPE, -ECANCELED, -ETIMEDOUT. */
static int read_bytes(const struct qemu_takeover *takeover, void *buffer, size_t size)
{
	struct pollfd fds[] = {
		{.fd = takeover->fd, .events = POLLIN},
		{.fd = takeover->cancel_fd, .events = POLLIN},
	};
	uint8_t *at = buffer;

	while (size > 0) {
		int ready = poll(fds, 2, SILENCE_MS);
		ssize_t n;

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0)
			return ready < 0 ? -errno : -ETIMEDOUT;
		if (fds[1].revents != 0)
			return -ECANCELED;
		n = recv(takeover->fd, at, size, MSG_DONTWAIT);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0)
			return -EPIPE;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* A message of whose bytes the first @have, 4 at least, have been read. */
static int read_rest(const struct qemu_takeover *takeover, uint8_t *bytes, size_t have,
	struct qemu_return_message *message)
{
	uint32_t last_block = UINT32_MAX; /* what is asked for is left out */
	size_t size = 4 + (size_t)be16_load(bytes + 2), used = 0;
	int code;

	if (size > QEMU_RETURN_MESSAGE_MAX || size < have)
		return -EPROTO;
	code = read_bytes(takeover, bytes + have, size - have);
	if (code == 0)
		code = qemu_return_parse(bytes, size, takeover->blocks, takeover->block_count,
			&last_block, message, &used);
	return code < 0 ? code : 0;
}

/* The next message that is no request. */
static int read_message(const struct qemu_takeover *takeover, enum qemu_reply type,
	struct qemu_return_message *message)
{
	uint8_t bytes[QEMU_RETURN_MESSAGE_MAX];
	int code;

	do {
		code = read_bytes(takeover, bytes, 4);
		if (code == 0)
			code = read_rest(takeover, bytes, 4, message);
	} while (code == 0 && qemu_reply_is_request(message->type));
	if (code < 0)
		return code;
	return message->type == type ? 0 : -EPROTO;
}

/*
 * The size of a bitmap. As a request it would be of 2^48 bytes and more, so that the two cannot be
 * taken for each other.
 */
static int read_size(const struct qemu_takeover *takeover, uint64_t expected)
{
	uint8_t bytes[QEMU_RETURN_MESSAGE_MAX] = {0};
	struct qemu_return_message message;
	int code;

	for (;;) {
		code = read_bytes(takeover, bytes, 8);
		if (code < 0 || be64_load(bytes) == expected)
			return code;
		if (!qemu_reply_is_request((enum qemu_reply)be16_load(bytes)))
			return -EPROTO;
		code = read_rest(takeover, bytes, 8, &message);
		if (code < 0)
			return code;
	}
}

/* Marks the pages of a block that QEMU says it has. */
static int read_bitmap(const struct qemu_takeover *takeover, const struct qemu_block *block,
	struct rouse_bitmap *placed)
{
	const uint64_t pages = block->used_bytes / QEMU_PAGE_BYTES;
	const uint64_t size = (pages + 63) / 64 * 8;
	cleanup_free uint8_t *bits = NULL;
	uint8_t end[8];
	int code = read_size(takeover, size);

	if (code < 0)
		return code;
	bits = calloc(1, size > 0 ? size : 1);
	if (bits == NULL)
		return -ENOMEM;
	code = read_bytes(takeover, bits, size);
	if (code == 0)
		code = read_bytes(takeover, end, sizeof(end));
	if (code < 0)
		return code;
	if (be64_load(end) != QEMU_RECV_BITMAP_END)
		return -EPROTO;
	for (uint64_t i = 0; i < pages; i++) {
		if (bits[i / 8] >> (i % 8) & 1)
			rouse_bitmap_set(placed, block->first_page + i);
	}
	return 0;
}

static int read_answers(const struct qemu_takeover *takeover, struct rouse_bitmap *placed)
{
	struct qemu_return_message message = {0};
	int code = 0;

	for (uint32_t i = 0; code == 0 && i < takeover->block_count; i++) {
		code = read_message(takeover, QEMU_REPLY_RECV_BITMAP, &message);
		if (code == 0 && message.block != i)
			code = -EPROTO;
		if (code == 0)
			code = read_bitmap(takeover, &takeover->blocks[i], placed);
	}
	if (code == 0)
		code = read_message(takeover, QEMU_REPLY_RESUME_ACK, &message);
	if (code == 0 && message.value != 1)
		code = -EPROTO;
	return code;
}

int qemu_takeover_read(const struct qemu_takeover *takeover, struct rouse_bitmap *placed,
	struct rouse_error *error)
{
	int code = read_answers(takeover, placed);

	if (code == 0)
		return 0;
	if (code == -ECANCELED)
		return rouse_error_set(error, ROUSE_ERROR_CANCELLED, code,
			"cancelled while taking over: the VM waits; take over with `rouse restore "
			"--resume`");
	return rouse_error_set(error, ROUSE_ERROR_VMM, code, "%s",
		code == -EPROTO      ? "QEMU's memory is not that of this image"
		: code == -ETIMEDOUT ? "QEMU does not say which pages it has: it stands still"
				     : "QEMU broke off the recovery");
}
