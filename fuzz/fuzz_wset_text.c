/* SPDX-License-Identifier: MIT */
/* The reader of the text form of working sets: what it accepts can be written and read again. */
#include "base/cleanup.h"
#include "wset/wset_text.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool same(const struct rouse_wset *a, const struct rouse_wset *b)
{
	return a->page_count == b->page_count && a->block_count == b->block_count &&
	       a->runs == b->runs && a->flags == b->flags &&
	       memcmp(a->blocks, b->blocks, a->block_count * sizeof(*a->blocks)) == 0 &&
	       memcmp(a->pages, b->pages, a->page_count * sizeof(*a->pages)) == 0;
}

static void check(const struct rouse_wset *wset)
{
	cleanup_free char *text = NULL, *bytes = NULL;
	struct rouse_wset *again = NULL;
	size_t size = 0;

	if (rouse_wset_text_encode(wset, &text, &size, NULL) < 0 ||
		rouse_wset_text_parse(text, size, NULL, &again, NULL) < 0 || !same(wset, again))
		abort();
	rouse_wset_close(again);
	/* And as a working-set file. */
	if (rouse_wset_encode(wset, &bytes, &size, NULL) < 0 ||
		rouse_wset_parse(bytes, size, &again, NULL) < 0)
		abort();
	rouse_wset_close(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rouse_wset *wset = NULL;
	/* A copy of just that size: reading behind it is then seen by the sanitizer. */
	cleanup_free char *copy = malloc(size > 0 ? size : 1);

	if (copy == NULL)
		return 0;
	memcpy(copy, data, size);
	if (rouse_wset_text_parse(copy, size, NULL, &wset, NULL) == 0)
		check(wset);
	rouse_wset_close(wset);
	return 0;
}
