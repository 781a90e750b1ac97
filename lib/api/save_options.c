/* SPDX-License-Identifier: MIT */
#include "api/save_options.h"

#include "base/error.h"
#include "wset/scan_rule.h"

#include <errno.h>
#include <string.h>

void rouse_save_options_init(struct rouse_save_options *options)
{
	memset(options, 0, sizeof(*options));
	options->size = sizeof(*options);
	options->layout.codec = ROUSE_CODEC_LZ4;
}

bool save_options_estimate_afterwards(const struct rouse_save_options *options)
{
	return options->estimate == ROUSE_ESTIMATE_TRACE ||
	       options->estimate == ROUSE_ESTIMATE_SCAN;
}

bool save_options_estimate_before(const struct rouse_save_options *options)
{
	return options->estimate == ROUSE_ESTIMATE_TRACE_BEFORE ||
	       options->estimate == ROUSE_ESTIMATE_SCAN_BEFORE;
}

static int check_estimate(const struct rouse_save_options *options, struct rouse_error *error)
{
	if (options->estimate != ROUSE_ESTIMATE_NONE && options->wset != NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"an image is laid out for a given working set or for an estimated one, not "
			"for both");
	if (save_options_estimate_afterwards(options) && !options->keep_running)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"what a VM touches after its checkpoint can be seen only if it goes on "
			"(--keep-running); trace-before and scan-before are for one that does not");
	if (options->scan_count > SCAN_RULE_MAX_SCANS)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the number of scans must be 1 to %u", SCAN_RULE_MAX_SCANS);
	if ((unsigned int)options->scan_source > ROUSE_SCAN_WRITES)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "there is no such source of a scan");
	if (options->estimate == ROUSE_ESTIMATE_SNAPSHOT_ORDER &&
		(!options->keep_running || options->no_background_snapshot))
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"snapshot-order needs a background snapshot (--keep-running)");
	return 0;
}

int save_options_complete(const struct rouse_save_options *given,
	struct rouse_save_options *options, struct rouse_error *error)
{
	size_t size = given->size < sizeof(*options) ? given->size : sizeof(*options);

	rouse_save_options_init(options);
	memcpy(options, given, size);
	if (options->qmp_socket == NULL || options->image == NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"a save needs a QMP socket and an image to write");
	if (options->disks == ROUSE_DISKS_SNAPSHOT && !options->keep_running)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"overlays for the disks make sense only for a VM that goes on "
			"(--keep-running)");
	return check_estimate(options, error);
}
