/* SPDX-License-Identifier: MIT */
/* Bytes of a QMP connection into messages. QEMU ends each with a newline and has none inside. */
#include "vmm/qmp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void qmp_reader_finish(struct qmp_reader *reader)
{
	free(reader->buffer);
	memset(reader, 0, sizeof(*reader));
}

static int reader_append(struct qmp_reader *reader, const char *bytes, size_t size)
{
	if (size > QMP_MAX_MESSAGE - reader->used)
		return -EFBIG;
	if (size > reader->room - reader->used) {
		size_t room = reader->room > 0 ? reader->room : 4096;
		char *more;

		while (room < reader->used + size)
			room *= 2;
		more = realloc(reader->buffer, room);
		if (more == NULL)
			return -ENOMEM;
		reader->buffer = more;
		reader->room = room;
	}
	if (size > 0)
		memcpy(reader->buffer + reader->used, bytes, size);
	reader->used += size;
	return 0;
}

static bool line_is_blank(const char *line, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	}
	return true;
}

static int line_parse(const char *line, size_t size, json_t **message)
{
	json_error_t why;
	json_t *root = json_loadb(line, size, 0, &why);

	if (root == NULL) {
		if (json_error_code(&why) == json_error_out_of_memory)
			return -ENOMEM;
		return -EUCLEAN;
	}
	if (!json_is_object(root)) {
		json_decref(root);
		return -EUCLEAN;
	}
	*message = root;
	return 0;
}

int qmp_reader_feed(
	struct qmp_reader *reader, const char *bytes, size_t size, size_t *used, json_t **message)
{
	size_t done = 0;

	*message = NULL;
	*used = size;
	while (done < size && *message == NULL) {
		const char *end = memchr(bytes + done, '\n', size - done);
		size_t part = (end != NULL ? (size_t)(end - bytes) : size) - done;
		int code = reader_append(reader, bytes + done, part);

		if (code < 0)
			return code;
		if (end == NULL)
			return 0;
		done += part + 1;
		if (!line_is_blank(reader->buffer, reader->used))
			code = line_parse(reader->buffer, reader->used, message);
		if (code == -EUCLEAN && reader->joined_late)
			code = 0;
		reader->joined_late = false;
		reader->used = 0;
		if (code < 0)
			return code;
	}
	*used = done;
	return 0;
}
