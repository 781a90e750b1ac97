/* SPDX-License-Identifier: MIT */
/* Where the time of a restore went, as JSON and for people. */
#include "tool.h"

static const struct {
	const char *name, *text;
} stages[ROUSE_STAGE_COUNT] = {
	[ROUSE_STAGE_READ_BULK] = {"read_bulk", "reading ahead"},
	[ROUSE_STAGE_READ_URGENT] = {"read_urgent", "reading for faults"},
	[ROUSE_STAGE_WAIT_PAGES] = {"wait_pages", "placing waited for pages"},
	[ROUSE_STAGE_WAIT_ROOM] = {"wait_room", "reading waited for room"},
	[ROUSE_STAGE_WAIT_FAULT] = {"wait_fault", "faults waited to be read"},
	[ROUSE_STAGE_VERIFY] = {"verify", "verifying"},
	[ROUSE_STAGE_DECOMPRESS] = {"decompress", "decompressing"},
	[ROUSE_STAGE_PLACE_PREFETCH] = {"place_prefetch", "placing before the start"},
	[ROUSE_STAGE_PLACE_BACKGROUND] = {"place_background", "placing in the background"},
	[ROUSE_STAGE_PLACE_DEMAND] = {"place_demand", "placing for faults"},
};

/* Microseconds a page; 0 of nothing. */
static double page_us(const struct rouse_stage_time *time)
{
	return time->pages > 0 ? (double)time->ns / 1e3 / (double)time->pages : 0;
}

json_t *stages_json(const struct rouse_stage_time times[ROUSE_STAGE_COUNT])
{
	json_t *json = json_object();

	for (int i = 0; i < ROUSE_STAGE_COUNT; i++)
		(void)json_object_set_new(json, stages[i].name,
			json_pack("{s:f, s:I, s:f}", "ms", (double)times[i].ns / 1e6, "pages",
				(json_int_t)times[i].pages, "page_us", page_us(&times[i])));
	return json;
}

void stages_print(const struct rouse_stage_time times[ROUSE_STAGE_COUNT])
{
	for (int i = 0; i < ROUSE_STAGE_COUNT; i++) {
		if (times[i].ns > 0)
			printf("%s: %s, %llu pages, %.2f us each\n", stages[i].text,
				human_us((double)times[i].ns / 1e3).text,
				(unsigned long long)times[i].pages, page_us(&times[i]));
	}
}
