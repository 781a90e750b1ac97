/* SPDX-License-Identifier: MIT */
#include "wset/scan_idle_batch.h"

#include <errno.h>
#include <string.h>

/*
 * Words between two pages that are taken along. To the kernel a clear bit in what is written costs
 * next to nothing, and a flag some ten nanoseconds: less than another call. A bit that is read
 * costs it a look at the page.
 */
#define WRITE_GAP 4u
#define READ_GAP 0u
#define FLAGS_GAP 16u

int scan_idle_words_read(const struct scan_idle_kernel *kernel, enum scan_idle_file file,
	uint64_t first, uint64_t *words, size_t count, size_t *have)
{
	const size_t bytes = count * SCAN_IDLE_WORD;
	size_t done = 0;

	while (done < bytes) {
		const ssize_t part = kernel->read(kernel->user, file, (char *)words + done,
			bytes - done, first * SCAN_IDLE_WORD + done);

		if (part < 0)
			return (int)part;
		if (part == 0)
			break;
		/* A part of a word would make the next call start inside one. */
		if ((size_t)part > bytes - done || (size_t)part % SCAN_IDLE_WORD != 0)
			return -EIO;
		done += (size_t)part;
	}
	memset((char *)words + done, 0, bytes - done);
	*have = done / SCAN_IDLE_WORD;
	return 0;
}

int scan_idle_bits_read(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count)
{
	uint64_t words[SCAN_IDLE_RUN_WORDS];
	struct scan_idle_run run;

	for (size_t i = 0; i < count; i = run.end) {
		size_t have;
		int code;

		run = scan_idle_run_next(items, count, i, SCAN_IDLE_BITS, READ_GAP);
		code = scan_idle_words_read(
			kernel, SCAN_IDLE_BITMAP, run.first, words, run.words, &have);
		if (code < 0)
			return code;
		for (size_t j = i; j < run.end; j++)
			items[j].bit = (uint8_t)scan_idle_bit_get(
				words, &run, (uint32_t)have, items[j].pfn);
	}
	return 0;
}

/* -ENXIO is the end of the machine's memory: the pages behind it stay unmarked. */
static int write_words(
	const struct scan_idle_kernel *kernel, uint64_t first, const uint64_t *words, size_t count)
{
	const size_t bytes = count * SCAN_IDLE_WORD;
	size_t done = 0;

	while (done < bytes) {
		const ssize_t part = kernel->write(kernel->user, (const char *)words + done,
			bytes - done, first * SCAN_IDLE_WORD + done);

		if (part == -ENXIO || part == 0)
			return 0;
		if (part < 0)
			return (int)part;
		if ((size_t)part > bytes - done || (size_t)part % SCAN_IDLE_WORD != 0)
			return -EIO;
		done += (size_t)part;
	}
	return 0;
}

int scan_idle_bits_write(
	const struct scan_idle_kernel *kernel, const struct scan_idle_item *items, size_t count)
{
	uint64_t words[SCAN_IDLE_RUN_WORDS];
	struct scan_idle_run run;

	for (size_t i = 0; i < count; i = run.end) {
		int code;

		run = scan_idle_run_next(items, count, i, SCAN_IDLE_BITS, WRITE_GAP);
		memset(words, 0, run.words * sizeof(*words));
		for (size_t j = i; j < run.end; j++)
			scan_idle_bit_put(words, &run, items[j].pfn);
		code = write_words(kernel, run.first, words, run.words);
		if (code < 0)
			return code;
	}
	return 0;
}

int scan_idle_flags_read(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count)
{
	uint64_t words[SCAN_IDLE_RUN_WORDS];
	struct scan_idle_run run;

	for (size_t i = 0; i < count; i = run.end) {
		size_t have;
		int code;

		run = scan_idle_run_next(items, count, i, 1, FLAGS_GAP);
		code = scan_idle_words_read(
			kernel, SCAN_IDLE_PAGEFLAGS, run.first, words, run.words, &have);
		if (code < 0)
			return code;
		for (size_t j = i; j < run.end; j++)
			items[j].flags = words[items[j].pfn - run.first];
	}
	return 0;
}

/* The process has a part of a huge page only, without its beginning. */
static int look_back(const struct scan_idle_kernel *kernel, struct scan_idle_item *item)
{
	for (unsigned int step = 0;; step++) {
		const uint64_t pfn = scan_idle_head_candidate(item->pfn, step);
		uint64_t flags;
		size_t have;
		int code;

		if (pfn == SCAN_IDLE_NO_HEAD)
			return 0;
		code = scan_idle_words_read(kernel, SCAN_IDLE_PAGEFLAGS, pfn, &flags, 1, &have);
		if (code < 0)
			return code;
		if ((flags & SCAN_IDLE_FLAG_TAIL) != 0)
			continue;
		if ((flags & SCAN_IDLE_FLAG_HEAD) != 0)
			item->head = pfn;
		return 0;
	}
}

int scan_idle_heads_find(
	const struct scan_idle_kernel *kernel, struct scan_idle_item *items, size_t count)
{
	int code = 0;

	for (size_t i = 0; i < count && code == 0; i++) {
		items[i].head = scan_idle_head(i > 0 ? &items[i - 1] : NULL, &items[i]);
		if (items[i].head == SCAN_IDLE_NO_HEAD)
			code = look_back(kernel, &items[i]);
	}
	return code;
}
