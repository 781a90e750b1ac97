/* SPDX-License-Identifier: MIT */
#include "engine/fault_span.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Of what is read around a chunk, the part in front of it: guests go up more often than down. */
#define FRONT_BYTES (FAULT_SPAN_BYTES / 4)
#define BATCH_PAGES 16u

int fault_span_init(
	struct fault_span *span, struct rouse_reader *reader, struct stage_clock *stages)
{
	*span = (struct fault_span){.reader = reader, .stages = stages};
	span->chunk_bytes = (size_t)le32_get(rouse_reader_superblock(reader)->chunk_pages) *
			    ROUSE_IMAGE_PAGE_BYTES;
	/* A chunk that does not shrink is stored as it is. */
	span->stored =
		malloc(span->chunk_bytes > FAULT_SPAN_BYTES ? span->chunk_bytes : FAULT_SPAN_BYTES);
	span->scratch = malloc(span->chunk_bytes);
	return span->stored != NULL && span->scratch != NULL ? 0 : -ENOMEM;
}

void fault_span_finish(struct fault_span *span)
{
	free(span->stored);
	free(span->scratch);
}

void fault_span_touch(struct fault_span *span)
{
	memset(span->stored, 0, span->chunk_bytes);
	memset(span->scratch, 0, span->chunk_bytes);
}

/* The descriptor of a chunk, only if it may be read and decompressed into our buffers. */
static int get_chunk(const struct fault_span *span, uint64_t number, struct rouse_chunk *chunk)
{
	int code = rouse_reader_chunk(span->reader, number, ROUSE_READ_URGENT, chunk);

	if (code < 0)
		return code;
	return chunk->stored_bytes <= span->chunk_bytes &&
			       (size_t)chunk->pages * ROUSE_IMAGE_PAGE_BYTES <= span->chunk_bytes
		       ? 0
		       : -EUCLEAN;
}

/*
 * Chunks stored right in front of the chosen one, nearest first, into @front: how many. A chunk of
 * many pages may leave little room for others.
 */
static uint32_t choose_front(
	const struct fault_span *span, uint64_t number, struct rouse_chunk *front, size_t *bytes)
{
	uint64_t begin = span->chunks[0].offset;
	uint32_t n = 0;

	while (n < FAULT_SPAN_CHUNKS / 4 && number > n &&
		get_chunk(span, number - n - 1, &front[n]) == 0 &&
		front[n].offset + front[n].stored_bytes == begin &&
		*bytes + front[n].stored_bytes <= FRONT_BYTES &&
		*bytes + front[n].stored_bytes + span->chunks[0].stored_bytes <= FAULT_SPAN_BYTES) {
		begin = front[n].offset;
		*bytes += front[n].stored_bytes;
		n++;
	}
	return n;
}

/* Adds the chunks that follow, up to @limit in all. */
static void choose_behind(struct fault_span *span, size_t bytes, uint32_t limit)
{
	const uint64_t chunks = rouse_reader_chunk_count(span->reader);

	while (span->count < limit && span->first + span->count < chunks) {
		const struct rouse_chunk *last = &span->chunks[span->count - 1];
		struct rouse_chunk *next = &span->chunks[span->count];

		if (get_chunk(span, span->first + span->count, next) < 0 ||
			next->offset != last->offset + last->stored_bytes ||
			bytes + next->stored_bytes > FAULT_SPAN_BYTES)
			return;
		bytes += next->stored_bytes;
		span->count++;
	}
}

int fault_span_choose(struct fault_span *span, uint64_t number, bool wide)
{
	struct rouse_chunk front[FAULT_SPAN_CHUNKS / 4], chunk;
	size_t front_bytes = 0;
	uint32_t n;
	int code = get_chunk(span, number, &chunk);

	if (code < 0)
		return code;
	span->first = number;
	span->count = 1;
	span->chunks[0] = chunk;
	if (!wide)
		return 0;
	n = choose_front(span, number, front, &front_bytes);
	for (uint32_t i = 0; i < n; i++)
		span->chunks[i] = front[n - 1 - i];
	span->chunks[n] = chunk;
	span->first = number - n;
	span->count = n + 1;
	choose_behind(span, front_bytes + chunk.stored_bytes, FAULT_SPAN_CHUNKS);
	return 0;
}

int fault_span_choose_run(struct fault_span *span, uint64_t number, uint32_t count)
{
	int code = get_chunk(span, number, &span->chunks[0]);

	if (code < 0)
		return code;
	span->first = number;
	span->count = 1;
	choose_behind(span, span->chunks[0].stored_bytes,
		count < FAULT_SPAN_CHUNKS ? count : FAULT_SPAN_CHUNKS);
	return 0;
}

static size_t stored_at(const struct fault_span *span, uint64_t number)
{
	return (size_t)(fault_span_chunk(span, number)->offset - span->chunks[0].offset);
}

int fault_span_read(struct fault_span *span, struct rouse_source *source)
{
	const uint64_t last = fault_span_last(span), begun_ns = rouse_clock_ns();
	uint64_t pages = 0;
	int code = rouse_source_read(source, span->chunks[0].offset, span->stored,
		stored_at(span, last) + fault_span_chunk(span, last)->stored_bytes,
		ROUSE_READ_URGENT);

	for (uint32_t i = 0; i < span->count; i++)
		pages += span->chunks[i].pages;
	stage_clock_add(span->stages, ROUSE_STAGE_READ_URGENT, rouse_clock_ns() - begun_ns, pages);
	return code;
}

int fault_span_decode_front(const struct fault_span *span, uint64_t number, uint32_t front,
	void *pages, uint32_t *decoded)
{
	const struct rouse_chunk *chunk = fault_span_chunk(span, number);
	struct rouse_decode_time time = {0};
	int code = rouse_chunk_decode_front(
		chunk, span->stored + stored_at(span, number), front, pages, decoded, &time);

	stage_clock_add(span->stages, ROUSE_STAGE_VERIFY, time.verify_ns, chunk->pages);
	stage_clock_add(span->stages, ROUSE_STAGE_DECOMPRESS, time.decompress_ns, *decoded);
	return code;
}

int fault_span_decode_behind(
	const struct fault_span *span, uint64_t number, void *pages, uint32_t decoded)
{
	const struct rouse_chunk *chunk = fault_span_chunk(span, number);
	struct rouse_decode_time time = {0};
	int code = rouse_chunk_decode_behind(
		chunk, span->stored + stored_at(span, number), pages, &time);

	stage_clock_add(
		span->stages, ROUSE_STAGE_DECOMPRESS, time.decompress_ns, chunk->pages - decoded);
	return code;
}

int fault_span_decode(const struct fault_span *span, uint64_t number, void *pages)
{
	uint32_t decoded;

	return fault_span_decode_front(
		span, number, fault_span_chunk(span, number)->pages, pages, &decoded);
}

/* Pages on their way to the sink, all of one decompressed chunk. */
struct batch {
	struct rouse_sink *sink;
	struct stage_clock *stages;
	uint64_t chunk;
	const uint8_t *data; /* of the chunk; NULL: it is damaged */
	struct rouse_sink_page pages[BATCH_PAGES];
	size_t count, placed;
};

static int batch_flush(struct batch *batch)
{
	uint64_t begun_ns;
	size_t placed = 0;
	int code;

	if (batch->count == 0)
		return 0;
	begun_ns = rouse_clock_ns();
	code = batch->sink->ops->place(
		batch->sink, batch->pages, batch->count, ROUSE_SINK_URGENT, &placed);
	stage_clock_add(
		batch->stages, ROUSE_STAGE_PLACE_DEMAND, rouse_clock_ns() - begun_ns, batch->count);
	batch->placed += placed;
	batch->count = 0;
	return code;
}

static int batch_put(struct batch *batch, struct fault_span *span, uint64_t page, uint64_t locator)
{
	const uint64_t number = rouse_locator_chunk(locator);
	int code = 0;

	if (number != batch->chunk || batch->count == BATCH_PAGES)
		code = batch_flush(batch);
	if (code < 0)
		return code;
	if (number != batch->chunk) {
		batch->chunk = number;
		batch->data =
			fault_span_decode(span, number, span->scratch) == 0 ? span->scratch : NULL;
	}
	if (batch->data != NULL && rouse_locator_in_chunk(locator, fault_span_chunk(span, number)))
		batch->pages[batch->count++] = (struct rouse_sink_page){.page = page,
			.data = batch->data +
				(size_t)rouse_locator_slot(locator) * ROUSE_IMAGE_PAGE_BYTES};
	return 0;
}

int fault_span_place_around(struct fault_span *span, struct rouse_sink *sink, uint64_t page,
	uint64_t number, const void *decoded, size_t *placed)
{
	struct batch batch = {
		.sink = sink, .stages = span->stages, .chunk = number, .data = decoded};
	const uint64_t table_index = page / ROUSE_PAGE_TABLE_PAGES;
	const uint64_t first = table_index * ROUSE_PAGE_TABLE_PAGES, here = page - first;
	const uint64_t reach = (uint64_t)span->count * (FAULT_AROUND_PAGES + 1) - 1;
	const le64_t *table;
	uint32_t entries;
	int code = rouse_reader_page_table(
		span->reader, table_index, ROUSE_READ_URGENT, &table, &entries);

	*placed = 0;
	if (code < 0 || table == NULL)
		return code;
	for (uint64_t i = here > reach ? here - reach : 0; i < entries && i <= here + reach; i++) {
		const uint64_t locator = le64_get(table[i]);

		if (locator == ROUSE_LOCATOR_ZERO ||
			rouse_locator_chunk(locator) - span->first >= span->count ||
			sink->ops->is_placed(sink, first + i))
			continue;
		code = batch_put(&batch, span, first + i, locator);
		if (code < 0)
			break;
	}
	if (code == 0)
		code = batch_flush(&batch);
	*placed = batch.placed;
	return code;
}
