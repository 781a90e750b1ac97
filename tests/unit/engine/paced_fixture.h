/* SPDX-License-Identifier: MIT */
/* An image (engine_fixture.h) with a working set whose pages were touched at known times. */
#ifndef ROUSE_TESTS_PACED_FIXTURE_H
#define ROUSE_TESTS_PACED_FIXTURE_H

#include "engine_fixture.h"

enum { COUNT = 2000, FIRST = 4000 };

/* With a set of COUNT pages from FIRST on, touched @step_us apart. */
static inline void make_paced_image(const char *path, uint32_t step_us)
{
	static struct rouse_writer_touch wset[COUNT];

	for (uint32_t i = 0; i < COUNT; i++)
		wset[i] = (struct rouse_writer_touch){.page = FIRST + i, .time_us = i * step_us};
	make_image(path, wset, COUNT);
}

#endif
