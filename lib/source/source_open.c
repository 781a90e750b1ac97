/* SPDX-License-Identifier: MIT */
/* Which way to read a file. */
#include "base/error.h"
#include "source/auto_source.h"
#include "source/direct_source.h"
#include "source/page_cache.h"
#include "source/source.h"

#include <errno.h>

/*
 * A file that is there for half has been read by others, and will be read by others again. A cold
 * one is read past the page cache, which costs a fifth of the processor time and is faster, unless
 * another restore reads it right now: then one of them reads for all. docs/performance.md.
 */
#define CACHED_PERCENT 50

static bool wants_direct(const char *path, enum rouse_io io)
{
	int percent;

	if (io != ROUSE_IO_AUTO)
		return io == ROUSE_IO_DIRECT;
	percent = rouse_page_cache_percent(path);
	return percent >= 0 && percent < CACHED_PERCENT;
}

int rouse_source_open(const char *path, enum rouse_io io, const struct rouse_throttle *throttle,
	struct rouse_source **source, struct rouse_error *error)
{
	int code = -EOPNOTSUPP;

	if (wants_direct(path, io))
		code = rouse_direct_source_open(path, &rouse_direct_kernel, source, error);
	if (code == 0 && io == ROUSE_IO_AUTO && rouse_direct_source_is_shared(*source)) {
		rouse_source_destroy(*source);
		code = -EOPNOTSUPP;
	}
	if (code == 0 && io == ROUSE_IO_AUTO) {
		code = rouse_auto_source_new(*source, source);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot open %s", path);
	}
	if (code == -EOPNOTSUPP)
		return rouse_file_source_open(path, throttle, source, error);
	if (code == 0 && throttle != NULL)
		code = rouse_source_throttle(source, throttle, error);
	return code;
}
