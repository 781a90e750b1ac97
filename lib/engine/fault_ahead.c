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

/* Whether page @k of the forecast exists, is missing and not zero; *locator: where it is. */
static bool is_missing(const struct ahead *ahead, uint32_t k, uint64_t *page, uint64_t *locator)
{
	/* Below zero it wraps around, and is no page either. */
	*page = ahead->page + (uint64_t)(ahead->forecast.stride * (int64_t)k);
	return *page < rouse_reader_page_count(ahead->span->reader) &&
	       !ahead->sink->ops->is_placed(ahead->sink, *page) &&
	       rouse_reader_locate(ahead->span->reader, *page, ROUSE_READ_URGENT, locator) == 0 &&
	       *locator != ROUSE_LOCATOR_ZERO;
}

/* Of the chunks from @first on, those in a row that the pages behind @k are in: how many. */
static uint32_t count_run(const struct ahead *ahead, uint32_t k, uint64_t first)
{
	uint64_t page, locator;
	uint32_t count = 1;

	while (++k <= ahead->forecast.steps) {
		uint64_t chunk;

		if (!is_missing(ahead, k, &page, &locator))
			continue;
		chunk = rouse_locator_chunk(locator);
		if (chunk == first + count)
			count++;
		else if (chunk - first >= count)
			break;
	}
	return count;
}

int fault_ahead_place(struct fault_span *span, struct rouse_source *source, struct rouse_sink *sink,
	uint64_t page, struct fault_forecast forecast, size_t *placed)
{
	const struct ahead ahead = {.span = span, .sink = sink, .page = page, .forecast = forecast};
	const uint64_t end_ns = rouse_clock_ns() + FAULT_AHEAD_NS;
	int code = 0;

	*placed = 0;
	for (uint32_t k = 1; k <= forecast.steps && code == 0; k++) {
		uint64_t wanted, locator, chunk;
		size_t n;

		if (!is_missing(&ahead, k, &wanted, &locator))
			continue;
		chunk = rouse_locator_chunk(locator);
		if (rouse_clock_ns() >= end_ns ||
			fault_span_choose_run(span, chunk, count_run(&ahead, k, chunk)) < 0 ||
			fault_span_read(span, source) < 0)
			break;
		code = fault_span_place_around(span, sink, wanted, ROUSE_FEEDER_NO_CHUNK, NULL, &n);
		*placed += n;
	}
	return code;
}
