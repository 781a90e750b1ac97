/* SPDX-License-Identifier: MIT */
#include "engine/fault_span.h"

#include "base/clock.h"
#include "engine/feeder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRONT_CHUNKS (FAULT_SPAN_CHUNKS / 2)
#define BATCH_PAGES 16u
/* Of addresses, beside its own pages, that a chunk lies in: zero pages', copies', the set's. */
#define WIDE_FACTOR 2u

/* Room for what is stored. A chunk that does not shrink is stored as it is. */
static size_t stored_room(const struct fault_span *span)
{
	return span->chunk_bytes + 2 * (size_t)FAULT_SPAN_SIDE_BYTES;
}

int fault_span_init(
	struct fault_span *span, struct rouse_reader *reader, struct stage_clock *stages)
{
	*span = (struct fault_span){.reader = reader, .stages = stages};
	span->chunk_bytes = (size_t)le32_get(rouse_reader_superblock(reader)->chunk_pages) *
			    ROUSE_IMAGE_PAGE_BYTES;
	span->stored = malloc(stored_room(span));
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

/* Chunks stored right in front of the chosen one, nearest first, into @front: how many. */
static uint32_t choose_front(
	const struct fault_span *span, uint64_t number, struct rouse_chunk *front)
{
	uint64_t begin = span->chunks[0].offset;
	size_t bytes = 0;
	uint32_t n = 0;

	while (n < FRONT_CHUNKS && number > n && get_chunk(span, number - n - 1, &front[n]) == 0 &&
		front[n].offset + front[n].stored_bytes == begin &&
		bytes + front[n].stored_bytes <= FAULT_SPAN_SIDE_BYTES) {
		begin = front[n].offset;
		bytes += front[n].stored_bytes;
		n++;
	}
	return n;
}

/* Adds the chunks that follow, up to @limit in all; @bytes have been chosen before. */
static void choose_behind(struct fault_span *span, size_t bytes, uint32_t limit)
{
	const uint64_t chunks = rouse_reader_chunk_count(span->reader);

	while (span->chosen < limit && span->first + span->chosen < chunks) {
		const struct rouse_chunk *last = &span->chunks[span->chosen - 1];
		struct rouse_chunk *next = &span->chunks[span->chosen];

		if (get_chunk(span, span->first + span->chosen, next) < 0 ||
			next->offset != last->offset + last->stored_bytes ||
			bytes + next->stored_bytes > FAULT_SPAN_SIDE_BYTES)
			return;
		bytes += next->stored_bytes;
		span->chosen++;
	}
}

int fault_span_choose(struct fault_span *span, uint64_t number, bool wide)
{
	struct rouse_chunk front[FRONT_CHUNKS], chunk;
	uint32_t n;
	int code = get_chunk(span, number, &chunk);

	if (code < 0)
		return code;
	span->first = number;
	span->count = span->chosen = 1;
	span->chunks[0] = chunk;
	if (!wide)
		return 0;
	n = choose_front(span, number, front);
	for (uint32_t i = 0; i < n; i++)
		span->chunks[i] = front[n - 1 - i];
	span->chunks[n] = chunk;
	span->first = number - n;
	span->count = span->chosen = n + 1;
	choose_behind(span, 0, FAULT_SPAN_CHUNKS);
	return 0;
}

int fault_span_choose_run(struct fault_span *span, uint64_t number, uint32_t count)
{
	int code = get_chunk(span, number, &span->chunks[0]);

	if (code < 0)
		return code;
	span->first = number;
	span->chosen = 1;
	choose_behind(span, span->chunks[0].stored_bytes,
		count < FAULT_SPAN_CHUNKS ? count : FAULT_SPAN_CHUNKS);
	span->count = span->chosen;
	return 0;
}

static size_t stored_at(const struct fault_span *span, uint64_t number)
{
	return (size_t)(fault_span_chunk(span, number)->offset - span->chunks[0].offset);
}

/* Reads chunks @from to before @to of the span, in one read. */
static int read_chunks(
	struct fault_span *span, struct rouse_source *source, uint32_t from, uint32_t to)
{
	const struct rouse_chunk *last = &span->chunks[to - 1];
	const uint64_t begin = span->chunks[from].offset, begun_ns = rouse_clock_ns();
	uint64_t pages = 0;
	int code =
		rouse_source_read(source, begin, span->stored + stored_at(span, span->first + from),
			(size_t)(last->offset + last->stored_bytes - begin), ROUSE_READ_URGENT);

	for (uint32_t i = from; i < to; i++)
		pages += span->chunks[i].pages;
	stage_clock_add(span->stages, ROUSE_STAGE_READ_URGENT, rouse_clock_ns() - begun_ns, pages);
	return code;
}

int fault_span_read(struct fault_span *span, struct rouse_source *source)
{
	return read_chunks(span, source, 0, span->count);
}

int fault_span_read_behind(struct fault_span *span, struct rouse_source *source)
{
	int code;

	if (span->chosen == span->count)
		return 0;
	code = read_chunks(span, source, span->count, span->chosen);
	if (code == 0)
		span->count = span->chosen;
	return code;
}

uint64_t fault_span_extra_bytes(const struct fault_span *span, uint64_t number)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < span->count; i++)
		bytes += span->chunks[i].stored_bytes;
	return bytes - fault_span_chunk(span, number)->stored_bytes;
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

/* How far from the page others are looked for. A run has been foretold page by page. */
static uint64_t reach_of(const struct fault_span *span, uint64_t number)
{
	if (span->count == 1 || number == ROUSE_FEEDER_NO_CHUNK)
		return (uint64_t)span->count * (FAULT_AROUND_PAGES + 1) - 1;
	return (uint64_t)span->count * (span->chunk_bytes / ROUSE_IMAGE_PAGE_BYTES) * WIDE_FACTOR;
}

int fault_span_place_around(struct fault_span *span, struct rouse_sink *sink, uint64_t page,
	uint64_t number, const void *decoded, size_t *placed)
{
	struct batch batch = {
		.sink = sink, .stages = span->stages, .chunk = number, .data = decoded};
	const uint64_t table_index = page / ROUSE_PAGE_TABLE_PAGES;
	const uint64_t first = table_index * ROUSE_PAGE_TABLE_PAGES, here = page - first;
	const uint64_t reach = reach_of(span, number);
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
