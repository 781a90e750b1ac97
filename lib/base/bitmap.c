/* SPDX-License-Identifier: MIT */
#include "base/bitmap.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>

static uint64_t bytes_of(const struct rouse_bitmap *bitmap)
{
	return (bitmap->bits + 63) / 64 * sizeof(uint64_t);
}

int rouse_bitmap_init(struct rouse_bitmap *bitmap, uint64_t bits)
{
	void *words;

	*bitmap = (struct rouse_bitmap){.bits = bits > 0 ? bits : 1};
	/* Fresh pages of the kernel are zero and cost nothing until they are written. */
	words = mmap(NULL, bytes_of(bitmap), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (words == MAP_FAILED) {
		bitmap->bits = 0;
		return -ENOMEM;
	}
	bitmap->words = words;
	return 0;
}

void rouse_bitmap_finish(struct rouse_bitmap *bitmap)
{
	if (bitmap->words != NULL)
		(void)munmap(bitmap->words, bytes_of(bitmap));
	*bitmap = (struct rouse_bitmap){0};
}

uint64_t rouse_bitmap_count(const struct rouse_bitmap *bitmap)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < (bitmap->bits + 63) / 64; i++)
		count += (uint64_t)__builtin_popcountll(bitmap->words[i]);
	return count;
}
