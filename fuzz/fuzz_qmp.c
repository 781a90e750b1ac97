/* SPDX-License-Identifier: MIT */
/*
 * The QMP reader on any bytes, at once and in pieces; and, as this is JSON from outside too, the
 * metadata of an image.
 */
#include "api/metadata.h"
#include "vmm/qmp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Messages read before the first error. */
static size_t read_all(const char *text, size_t size, size_t piece, bool joined_late)
{
	struct qmp_reader reader = {.joined_late = joined_late};
	size_t count = 0, at = 0;

	while (at < size) {
		size_t part = size - at < piece ? size - at : piece, used;
		json_t *message;

		if (qmp_reader_feed(&reader, text + at, part, &used, &message) < 0)
			break;
		if (used > part || (used < part && message == NULL))
			abort();
		at += used;
		count += message != NULL;
		json_decref(message);
	}
	qmp_reader_finish(&reader);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct rouse_metadata metadata;
	char *again;
	size_t length;

	for (unsigned int late = 0; late < 2; late++) {
		if (read_all(text, size, size > 0 ? size : 1, late != 0) !=
			read_all(text, size, 7, late != 0))
			abort();
	}
	if (rouse_metadata_parse(text, size, &metadata, NULL) == 0 &&
		rouse_metadata_build(&metadata, &again, &length) == 0)
		free(again);
	rouse_metadata_finish(&metadata);
	return 0;
}
