/* SPDX-License-Identifier: MIT */
/* What ends a restore early, in words: the image, the VMM, the user. */
#include "engine/engine_private.h"

#include "base/error.h"
#include "base/observer.h"

#include <string.h>

bool engine_may_pass(int code)
{
	return code == -ENOMEM || code == -EAGAIN || code == -EIO;
}

void engine_log_trouble(struct rouse_engine *e)
{
	rouse_log(e->config.observer, ROUSE_LOG_WARNING,
		"the background cannot go on for now (%s): what the VM asks for is delivered, the "
		"rest is tried again",
		strerrordesc_np(-e->trouble));
}

int engine_image_failure(struct rouse_engine *e, int code, uint64_t chunk, const char *then,
	struct rouse_error *error)
{
	struct rouse_chunk where = {0};

	if (code == -ENOMEM)
		return rouse_error_errno(error, code, "the restore ended: %s", then);
	if (code == -ECANCELED)
		return rouse_error_errno(error, code, "the restore ended");
	if (code == -EUCLEAN && chunk == ROUSE_FEEDER_NO_CHUNK)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, code,
			"a table of the image is damaged (`rouse verify` says where): %s", then);
	(void)rouse_reader_chunk(e->config.reader, chunk, ROUSE_READ_BULK, &where);
	if (code == -EUCLEAN)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, code,
			"the image is damaged at chunk %llu (offset %llu, %u bytes): %s",
			(unsigned long long)chunk, (unsigned long long)where.offset,
			where.stored_bytes, then);
	return rouse_error_errno(error, code, "cannot read the image: %s", then);
}

int engine_unanswered_fault(struct rouse_engine *e, uint64_t *chunk)
{
	int code = rouse_fault_service_wait(e->faults, 0, chunk);

	return code == -EUCLEAN || code == -EIO || code == -ENODATA || code == -ENOMEM ? code : 0;
}

int engine_service_failure(struct rouse_engine *e, int code, struct rouse_error *error)
{
	uint64_t chunk = 0;

	if (engine_unanswered_fault(e, &chunk) < 0)
		return engine_image_failure(e, code, chunk,
			"the VM waits for it and was paused; mend the image, then take over with "
			"`rouse restore --resume`",
			error);
	/* Who waited for the VMM to take pages, here or for a fault, has seen the cancel first. */
	if (code == -ECANCELED && engine_is_cancelled(e, error))
		return code;
	return rouse_error_set(error, ROUSE_ERROR_VMM, code == -ESHUTDOWN ? -EPIPE : code,
		"the VMM ended the restore before it was complete");
}

bool engine_is_cancelled(struct rouse_engine *e, struct rouse_error *error)
{
	if (!rouse_cancelled(e->config.observer))
		return false;
	(void)rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED,
		"cancelled: the VM keeps the pages it has and pauses at the next one; take over "
		"with `rouse restore --resume`");
	return true;
}

int engine_stop_for_damage(struct rouse_engine *e, int code, struct rouse_error *error)
{
	const char *then = e->sink->ops->stop_guest(e->sink, NULL) == 0
				   ? "the VM was stopped; mend the image, then take over with "
				     "`rouse restore --resume`"
				   : "the VM could not be stopped, but never gets that memory";

	return engine_image_failure(e, code, rouse_feeder_damaged(e->feeder), then, error);
}
