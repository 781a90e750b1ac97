/* SPDX-License-Identifier: MIT */
/* Reports for the page of rouse report: what is accepted becomes JSON again that cannot end a
 * script. */
#include "../tool/page.h"
#include "base/cleanup.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const json_t *page)
{
	cleanup_free char *text = page_data_text(page);
	json_t *again = text != NULL ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;

	if (again == NULL || strpbrk(text, "<>&") != NULL)
		abort();
	for (const char *c = text; *c != '\0'; c++) {
		if (*c < 0x20 || *c > 0x7e)
			abort();
	}
	json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct page_file file = {.path = "fuzzed", .name = "fuzzed", .named = true};
	json_t *page = page_data_new("fuzzed");
	/* A copy of just that size: reading behind it is then seen by the sanitizer. */
	cleanup_free char *copy = malloc(size > 0 ? size : 1);

	if (page != NULL && copy != NULL) {
		memcpy(copy, data, size);
		if (page_add_report_text(page, &file, copy, size) == EXIT_SUCCESS)
			check(page);
	}
	json_decref(page);
	return 0;
}
