/* SPDX-License-Identifier: MIT */
/*
 * Reads at random places through the source layer, as faults do:
 *
 *   bench-source FILE COUNT [BYTES_PER_S RANDOM_READS_PER_S]
 *
 * 4 KiB each, one after the other, urgent. Without the two numbers nothing holds it back but the
 * disk (and the cgroup that it runs in). Prints one line of JSON: {"reads", "seconds",
 * "reads_per_s"}.
 */
#include "base/clock.h"
#include "source/source.h"

#include <stdio.h>
#include <stdlib.h>

#define PAGE 4096u

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static int read_all(struct rouse_source *source, uint64_t count)
{
	const uint64_t pages = rouse_source_size(source) / PAGE;
	uint64_t x = rouse_clock_ns() | 1;
	unsigned char page[PAGE];
	int code = 0;

	for (uint64_t i = 0; code == 0 && i < count; i++)
		code = rouse_source_read(
			source, next_random(&x) % pages * PAGE, page, PAGE, ROUSE_READ_URGENT);
	return code;
}

int main(int argc, char **argv)
{
	struct rouse_throttle throttle = {0};
	struct rouse_source *source = NULL;
	struct rouse_error error = {0};
	uint64_t count, begun;
	double seconds;

	if (argc != 3 && argc != 5) {
		fprintf(stderr,
			"usage: bench-source FILE COUNT [BYTES_PER_S RANDOM_READS_PER_S]\n");
		return 2;
	}
	count = strtoull(argv[2], NULL, 10);
	if (argc == 5) {
		throttle.bytes_per_s = strtoull(argv[3], NULL, 10);
		throttle.random_reads_per_s = strtoull(argv[4], NULL, 10);
	}
	if (rouse_file_source_open(argv[1], &throttle, &source, &error) < 0) {
		fprintf(stderr, "bench-source: %s\n", error.message);
		return 1;
	}
	begun = rouse_clock_ns();
	if (rouse_source_size(source) < PAGE || read_all(source, count) < 0) {
		fprintf(stderr, "bench-source: cannot read %s\n", argv[1]);
		rouse_source_destroy(source);
		return 1;
	}
	seconds = (double)(rouse_clock_ns() - begun) / 1e9;
	printf("{\"reads\": %llu, \"seconds\": %.6f, \"reads_per_s\": %.2f}\n",
		(unsigned long long)count, seconds, (double)count / seconds);
	rouse_source_destroy(source);
	return 0;
}
