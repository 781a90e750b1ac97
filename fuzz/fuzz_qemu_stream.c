/* SPDX-License-Identifier: MIT */
/*
 * The decoder of QEMU's stream on any bytes, fed at once and in pieces: both ways must give the
 * same pages and the same verdict.
 */
#include "vmm/qemu_stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sum {
	uint64_t pages, blocks, value;
	uint64_t limit;
};

static int sum_blocks(void *user, const struct qemu_block *blocks, uint32_t count)
{
	struct sum *sum = user;

	if (count == 0 || sum->limit != 0)
		abort();
	for (uint32_t i = 0; i < count; i++)
		sum->limit += blocks[i].used_bytes / QEMU_PAGE_BYTES;
	sum->blocks = count;
	return 0;
}

static int sum_page(void *user, uint64_t page, const void *data)
{
	struct sum *sum = user;
	const uint8_t *bytes = data;

	if (page >= sum->limit)
		abort();
	sum->pages++;
	sum->value = sum->value * 31 + page;
	for (size_t i = 0; bytes != NULL && i < QEMU_PAGE_BYTES; i += 97)
		sum->value = sum->value * 31 + bytes[i];
	return 0;
}

static const struct qemu_stream_ops ops = {.blocks = sum_blocks, .page = sum_page};

static int decode(const uint8_t *data, size_t size, size_t piece, struct sum *sum)
{
	struct qemu_stream *stream;
	struct rouse_error error;
	int code = 0;
	size_t length;

	if (qemu_stream_new(&ops, sum, &stream) < 0)
		return -ENOMEM;
	for (size_t at = 0; code == 0 && at < size; at += piece)
		code = qemu_stream_feed(
			stream, data + at, size - at < piece ? size - at : piece, &error);
	if (code == 0)
		code = qemu_stream_end(stream, &error);
	if (code == 0) {
		const uint8_t *devices = qemu_stream_devices(stream, &length);

		sum->value = sum->value * 31 + length + (length > 0 ? devices[length - 1] : 0);
		(void)qemu_stream_config(stream, &length);
		sum->value = sum->value * 31 + length + strlen(qemu_stream_machine(stream));
	}
	qemu_stream_free(stream);
	return code;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sum whole = {0}, cut = {0};
	size_t piece = size > 0 ? 1 + data[size / 2] * 17u : 1;
	int code = decode(data, size, size > 0 ? size : 1, &whole);

	if (decode(data, size, piece, &cut) != code)
		abort();
	if (code == 0 && memcmp(&whole, &cut, sizeof(whole)) != 0)
		abort();
	return 0;
}
