// SPDX-License-Identifier: MIT
#include "content.h"

#include <string.h>

#define LINE_WORDS 8 /* 64 bytes */

/* Shares of the kinds of content, in 256ths; the rest is sparse. */
#define SHARE_RANDOM 56
#define SHARE_RECORDS 112

static void fill_random(uint64_t *word, size_t count, uint64_t state)
{
	for (size_t i = 0; i < count; i++)
		word[i] = content_next(&state);
}

/* Records of 64 bytes: a header and fields that repeat, and three words that do not. */
static void fill_records(uint64_t *word, size_t count, uint64_t state)
{
	uint64_t common = content_next(&state);

	for (size_t i = 0; i < count; i += LINE_WORDS) {
		word[i + 0] = common;
		word[i + 1] = 0x00007f0000000000ULL;
		word[i + 2] = content_next(&state);
		word[i + 3] = content_next(&state);
		word[i + 4] = content_next(&state);
		word[i + 5] = common;
		word[i + 6] = ~common;
		word[i + 7] = 1;
	}
}

/* One word in 64 bytes, like a half empty hash table. */
static void fill_sparse(uint64_t *word, size_t count, uint64_t state)
{
	memset(word, 0, count * sizeof(*word));
	for (size_t i = 0; i < count; i += LINE_WORDS)
		word[i] = content_next(&state);
}

void content_fill(void *buf, size_t len, uint64_t id, uint32_t generation)
{
	uint64_t seed = content_mix(id * 0x9e3779b97f4a7c15ULL + generation);
	size_t count = len / sizeof(uint64_t);
	unsigned int kind = seed & 0xff;

	seed |= 1;
	if (kind < SHARE_RANDOM)
		fill_random(buf, count, seed);
	else if (kind < SHARE_RANDOM + SHARE_RECORDS)
		fill_records(buf, count, seed);
	else
		fill_sparse(buf, count, seed);
}

bool content_check(const void *buf, size_t len, uint64_t id, uint32_t generation)
{
	_Alignas(8) unsigned char expected[CONTENT_MAX];

	if (len > sizeof(expected))
		return false;
	content_fill(expected, len, id, generation);
	return memcmp(buf, expected, len) == 0;
}
