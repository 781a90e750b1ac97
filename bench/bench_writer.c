/* SPDX-License-Identifier: MIT */
/*
 * How fast pages become an image: bench-writer [FILE [MIB [half|text|random [THREADS [CODEC]]]]]
 *
 *   half    each page half random, half zero
 *   text    words in random order: hard work for the compressor, shrinks about twice
 *   random  does not shrink
 *
 * Prints one line for the pages, one with the commit, which ends with fsync, and the processor time
 * of all threads, which says more than the others on a machine with other work to do.
 */
#include "base/clock.h"
#include "image/image_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define PAGE ROUSE_IMAGE_PAGE_BYTES
#define WORDS 2048u

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void fill_random(unsigned char *at, size_t size, uint64_t *x)
{
	for (size_t i = 0; i + 8 <= size; i += 8) {
		uint64_t r = next_random(x);

		memcpy(at + i, &r, sizeof(r));
	}
}

static void fill_text(unsigned char *at, size_t size, uint64_t *x)
{
	size_t used = 0;

	while (used < size) {
		uint64_t word = next_random(x) % WORDS * UINT64_C(0x9e3779b97f4a7c15) + 1;
		size_t length = 4 + word % 9;

		for (size_t i = 0; i < length && used < size; i++)
			at[used++] = (unsigned char)('a' + next_random(&word) % 26);
		if (used < size)
			at[used++] = ' ';
	}
}

static unsigned char *make_pages(const char *kind, uint64_t count)
{
	unsigned char *pages = calloc(count, PAGE);
	uint64_t x = 88172645463325252;

	for (uint64_t i = 0; pages != NULL && i < count; i++) {
		if (strcmp(kind, "text") == 0)
			fill_text(pages + i * PAGE, PAGE, &x);
		else
			fill_random(
				pages + i * PAGE, strcmp(kind, "half") == 0 ? PAGE / 2 : PAGE, &x);
	}
	return pages;
}

static double processor_seconds(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static int run(const char *path, const unsigned char *pages, uint64_t count,
	const struct rouse_layout *layout, struct rouse_error *error)
{
	struct rouse_block block = {.name = "ram", .used_bytes = count * PAGE, .page_bytes = PAGE};
	struct rouse_writer_stats stats;
	struct rouse_writer *writer;
	double mib = (double)count * PAGE / (1 << 20), processor = processor_seconds();
	uint64_t began, put;
	int code = rouse_writer_create(path, layout, &writer, error);

	if (code < 0)
		return code;
	began = rouse_clock_us();
	code = rouse_writer_set_blocks(writer, &block, 1, NULL, 0, error);
	for (uint64_t i = 0; code == 0 && i < count; i++)
		code = rouse_writer_put_page(writer, i, pages + i * PAGE);
	put = rouse_clock_us();
	if (code < 0) {
		rouse_writer_abort(writer);
		return code;
	}
	code = rouse_writer_commit(writer, &stats, error);
	if (code < 0)
		return code;
	printf("pages   %7.0f MiB/s\n", mib / ((double)(put - began) / 1e6));
	printf("in all  %7.0f MiB/s, %.2f times smaller\n",
		mib / ((double)(rouse_clock_us() - began) / 1e6),
		(double)count * PAGE / (double)stats.stored_bytes);
	printf("processor time %.2f s for each GiB\n",
		(processor_seconds() - processor) / (mib / 1024));
	return 0;
}

int main(int argc, char **argv)
{
	const char *path = argc > 1 ? argv[1] : "bench.rouse";
	uint64_t count = (argc > 2 ? strtoull(argv[2], NULL, 10) : 1024) * 256;
	const char *kind = argc > 3 ? argv[3] : "half";
	struct rouse_layout layout = {.codec = ROUSE_CODEC_LZ4};
	struct rouse_error error = {0};
	unsigned char *pages = make_pages(kind, count);

	if (argc > 4)
		layout.threads = (unsigned int)strtoul(argv[4], NULL, 10);
	if (argc > 5 && strcmp(argv[5], "zstd") == 0)
		layout.codec = ROUSE_CODEC_ZSTD;
	if (argc > 5 && strcmp(argv[5], "none") == 0)
		layout.codec = ROUSE_CODEC_NONE;
	if (pages == NULL || run(path, pages, count, &layout, &error) < 0) {
		fprintf(stderr, "%s\n", error.message);
		return 1;
	}
	free(pages);
	return 0;
}
