/* SPDX-License-Identifier: MIT */
#include "image/page_dedup.h"

#include "image/format.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>
#include <xxhash.h>

#define SECRET_BYTES 192u
#define FIRST_SLOTS 4096u

struct entry {
	uint64_t hash[2];
	uint64_t locator; /* 0: free */
};

/* Open addressing with linear probing; the number of slots is a power of two. */
struct rouse_dedup {
	struct entry *slots;
	uint64_t slot_count, used, max_used;
	unsigned char secrets[2][SECRET_BYTES];
};

static int draw(void *buffer, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = getrandom((char *)buffer + done, size - done, 0);

		if (n < 0 && errno != EINTR)
			return -EIO;
		if (n > 0)
			done += (size_t)n;
	}
	return 0;
}

int rouse_dedup_new(uint64_t max_pages, struct rouse_dedup **dedup)
{
	struct rouse_dedup *new = calloc(1, sizeof(*new));
	int code = -ENOMEM;

	if (new == NULL)
		return code;
	new->max_used = max_pages;
	new->slot_count = FIRST_SLOTS;
	new->slots = calloc(new->slot_count, sizeof(*new->slots));
	if (new->slots != NULL)
		code = draw(new->secrets, sizeof(new->secrets));
	if (code < 0) {
		rouse_dedup_free(new);
		return code;
	}
	*dedup = new;
	return 0;
}

void rouse_dedup_free(struct rouse_dedup *dedup)
{
	if (dedup == NULL)
		return;
	free(dedup->slots);
	free(dedup);
}

/* The slot of a hash, or the free one where it would be. There always is a free one. */
static struct entry *probe(struct entry *slots, uint64_t slot_count, const uint64_t hash[2])
{
	uint64_t at = hash[0] & (slot_count - 1);

	while (slots[at].locator != 0 &&
		(slots[at].hash[0] != hash[0] || slots[at].hash[1] != hash[1]))
		at = (at + 1) & (slot_count - 1);
	return &slots[at];
}

static bool grow(struct rouse_dedup *dedup)
{
	uint64_t count = dedup->slot_count * 2;
	struct entry *slots = calloc(count, sizeof(*slots));

	if (slots == NULL)
		return false;
	for (uint64_t i = 0; i < dedup->slot_count; i++) {
		if (dedup->slots[i].locator != 0)
			*probe(slots, count, dedup->slots[i].hash) = dedup->slots[i];
	}
	free(dedup->slots);
	dedup->slots = slots;
	dedup->slot_count = count;
	return true;
}

uint64_t *rouse_dedup_find(struct rouse_dedup *dedup, const void *data)
{
	uint64_t hash[2];
	struct entry *entry;

	for (unsigned int i = 0; i < 2; i++)
		hash[i] = XXH3_64bits_withSecret(
			data, ROUSE_IMAGE_PAGE_BYTES, dedup->secrets[i], SECRET_BYTES);
	entry = probe(dedup->slots, dedup->slot_count, hash);
	if (entry->locator != 0)
		return &entry->locator;
	/* Full: pages are stored again, which costs space only. */
	if (dedup->used >= dedup->max_used)
		return NULL;
	if (dedup->used * 4 >= dedup->slot_count * 3) {
		if (!grow(dedup))
			return NULL;
		entry = probe(dedup->slots, dedup->slot_count, hash);
	}
	dedup->used++;
	entry->hash[0] = hash[0];
	entry->hash[1] = hash[1];
	return &entry->locator;
}
