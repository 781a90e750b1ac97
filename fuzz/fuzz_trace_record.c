/* SPDX-License-Identifier: MIT */
/* The record of a trace, out of a process that may have changed it: what is accepted is inside. */
#include "wset/trace_private.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct trace_record record;
	uint64_t bytes;

	if (size < sizeof(record) + sizeof(bytes))
		return 0;
	memcpy(&record, data, sizeof(record));
	memcpy(&bytes, data + sizeof(record), sizeof(bytes));
	if (trace_record_check(&record, bytes) < 0)
		return 0;
	if (record.log_offset > record.data_bytes || record.log_count > record.log_room ||
		record.log_room * sizeof(struct trace_entry) >
			record.data_bytes - record.log_offset ||
		record.data_bytes > bytes || record.code_bytes > bytes - record.data_bytes)
		abort();
	return 0;
}
