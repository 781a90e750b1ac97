/* SPDX-License-Identifier: MIT */
#include "engine/fault_ahead.h"

#include "base/clock.h"
#include "engine/feeder.h"

struct ahead {
	struct fault_span *span;
	struct rouse_sink *sink;
	uint64_t page; /* of the fault */
	struct fault_forecast forecast;
};

/* Zero pages on their way to the sink. */
struct zeros {
	struct rouse_sink *sink;
	struct stage_clock *stages;
	struct rouse_sink_page pages[FAULT_PATTERN_PAGES];
	size_t count, placed;
};

static int zeros_flush(struct zeros *zeros)
{
	const uint64_t begun_ns = rouse_clock_ns();
	size_t placed = 0;
	int code;

	if (zeros->count == 0)
		return 0;
	code = zeros->sink->ops->place(
		zeros->sink, zeros->pages, zeros->count, ROUSE_SINK_URGENT, &placed);
	stage_clock_add(
		zeros->stages, ROUSE_STAGE_PLACE_DEMAND, rouse_clock_ns() - begun_ns, zeros->count);
	zeros->placed += placed;
	zeros->count = 0;
	return code;
}

static int zeros_put(struct zeros *zeros, uint64_t page)
{
	zeros->pages[zeros->count++] = (struct rouse_sink_page){.page = page};
	return zeros->count == FAULT_PATTERN_PAGES ? zeros_flush(zeros) : 0;
}

/* Whether @page exists and is missing; *locator: where it is. */
static bool is_missing(const struct ahead *ahead, uint64_t page, uint64_t *locator)
{
	return page < rouse_reader_page_count(ahead->span->reader) &&
	       !ahead->sink->ops->is_placed(ahead->sink, page) &&
	       rouse_reader_locate(ahead->span->reader, page, ROUSE_READ_URGENT, locator) == 0;
}

/* Page @k of the forecast. Below zero it wraps around, and is no page either. */
static uint64_t page_of(const struct ahead *ahead, uint32_t k)
{
	return ahead->page + (uint64_t)(ahead->forecast.stride * (int64_t)k);
}

/* Of the chunks from @first on, those in a row that the pages behind @k are in: how many. */
static uint32_t count_run(const struct ahead *ahead, uint32_t k, uint64_t first)
{
	uint64_t locator;
	uint32_t count = 1;

	while (++k <= ahead->forecast.steps) {
		uint64_t chunk;

		if (!is_missing(ahead, page_of(ahead, k), &locator) ||
			locator == ROUSE_LOCATOR_ZERO)
			continue;
		chunk = rouse_locator_chunk(locator);
		if (chunk == first + count)
			count++;
		else if (chunk - first >= count)
			break;
	}
	return count;
}

/* Reads and places the chunks that page @k of the forecast, at @locator, and those behind it are
 * in. 1: no more of it, nobody knows what there is or it takes too long. */
static int place_run(struct ahead *ahead, struct rouse_source *source, uint32_t k, uint64_t locator,
	size_t *placed)
{
	const uint64_t chunk = rouse_locator_chunk(locator);
	struct fault_span *span = ahead->span;
	size_t n = 0;
	int code;

	if (fault_span_choose_run(span, chunk, count_run(ahead, k, chunk)) < 0 ||
		fault_span_read(span, source) < 0)
		return 1;
	code = fault_span_place_around(
		span, ahead->sink, page_of(ahead, k), ROUSE_FEEDER_NO_CHUNK, NULL, &n);
	*placed += n;
	return code;
}

int fault_ahead_place(struct fault_span *span, struct rouse_source *source, struct rouse_sink *sink,
	uint64_t page, struct fault_forecast forecast, struct fault_extra *extra)
{
	struct ahead ahead = {.span = span, .sink = sink, .page = page, .forecast = forecast};
	const uint64_t end_ns = rouse_clock_ns() + FAULT_AHEAD_NS;
	struct zeros zeros = {.sink = sink, .stages = span->stages};
	int code = 0;

	*extra = (struct fault_extra){0};
	for (uint32_t k = 1; k <= forecast.steps && code == 0; k++) {
		uint64_t locator;

		if (!is_missing(&ahead, page_of(&ahead, k), &locator))
			continue;
		if (locator == ROUSE_LOCATOR_ZERO)
			code = zeros_put(&zeros, page_of(&ahead, k));
		else if (rouse_clock_ns() >= end_ns)
			code = 1;
		else
			code = place_run(&ahead, source, k, locator, &extra->stored);
	}
	if (code >= 0)
		code = zeros_flush(&zeros);
	extra->zeros = zeros.placed;
	return code;
}

int fault_ahead_place_zeros(
	struct fault_span *span, struct rouse_sink *sink, uint64_t page, size_t *placed)
{
	const struct ahead ahead = {.span = span, .sink = sink, .page = page};
	const uint64_t first = page > FAULT_AROUND_PAGES ? page - FAULT_AROUND_PAGES : 0;
	struct zeros zeros = {.sink = sink, .stages = span->stages};
	int code = 0;

	for (uint64_t i = first; i <= page + FAULT_AROUND_PAGES && code == 0; i++) {
		uint64_t locator;

		if (is_missing(&ahead, i, &locator) && locator == ROUSE_LOCATOR_ZERO)
			code = zeros_put(&zeros, i);
	}
	if (code == 0)
		code = zeros_flush(&zeros);
	*placed = zeros.placed;
	return code;
}
