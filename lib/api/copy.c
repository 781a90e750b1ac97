/* SPDX-License-Identifier: MIT */
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "base/observer.h"
#include "source/source.h"

#define PIECE_BYTES ROUSE_SOURCE_BULK

static void destroy_source(struct rouse_source **source)
{
	rouse_source_destroy(*source);
}

int rouse_copy(const char *path, int fd, const struct rouse_throttle *throttle,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(destroy_source) struct rouse_source *source = NULL;
	cleanup_free char *buffer = malloc(PIECE_BYTES);
	uint64_t done = 0, total;
	int code;

	if (buffer == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot copy %s", path);
	code = rouse_file_source_open(path, throttle, &source, error);
	if (code < 0)
		return code;
	for (total = rouse_source_size(source); done < total;) {
		size_t piece = total - done < PIECE_BYTES ? (size_t)(total - done) : PIECE_BYTES;

		if (rouse_cancelled(observer))
			return rouse_error_errno(error, -ECANCELED, "copying %s", path);
		code = rouse_source_read(source, done, buffer, piece, ROUSE_READ_BULK);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot read %s", path);
		code = rouse_io_write(fd, buffer, piece);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot write the copy of %s", path);
		done += piece;
		rouse_progress(observer, "copying", done, total);
	}
	return 0;
}
