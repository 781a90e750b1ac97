/* SPDX-License-Identifier: MIT */
/* What a flat file is, and whether all of it is as it was written. */
#include "image/flat.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "base/observer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_PAGES 256u

int rouse_flat_get_info(const char *path, struct rouse_flat_info *info, struct rouse_error *error)
{
	cleanup_with(rouse_flat_close) struct rouse_flat_file file;
	const int code = rouse_flat_open(path, &file, error);

	if (code < 0)
		return code;
	*info = (struct rouse_flat_info){
		.file_bytes = file.flat.file_bytes,
		.ram_bytes = file.flat.main_pages * ROUSE_IMAGE_PAGE_BYTES,
		.pages = file.flat.page_count,
		.zero_pages = file.flat.zero_pages,
		.unchanged = file.unchanged,
	};
	memcpy(info->id, file.flat.id, sizeof(info->id));
	return 0;
}

struct check {
	const struct rouse_flat_file *file;
	rouse_damage_fn *damage;
	void *damage_user;
	uint64_t damages;
	uint8_t *buffer; /* RUN_PAGES */
};

static void report(struct check *check, uint64_t index, const char *what)
{
	char text[128];

	check->damages++;
	(void)snprintf(text, sizeof(text), "page %" PRIu64 " %s",
		rouse_flat_page(&check->file->flat, index), what);
	if (check->damage != NULL)
		check->damage(check->damage_user, text, index * ROUSE_IMAGE_PAGE_BYTES,
			ROUSE_IMAGE_PAGE_BYTES);
}

/* Names each page from @index up to @end that is wrong, or that cannot be read. */
static void check_run(struct check *check, uint64_t index, uint64_t end)
{
	while (index < end) {
		uint64_t wrong = index;
		int code = rouse_flat_read(
			check->file, index, (uint32_t)(end - index), check->buffer, &wrong);

		if (code == 0)
			return;
		if (code == -EUCLEAN) {
			report(check, wrong, "is not what was written");
			index = wrong + 1;
			continue;
		}
		/* One of them is on a bad place of the disk: which, single reads tell. */
		for (; index < end; index++) {
			code = rouse_flat_read(check->file, index, 1, check->buffer, &wrong);
			if (code < 0)
				report(check, index,
					code == -EUCLEAN ? "is not what was written"
							 : "cannot be read");
		}
	}
}

static int check_pages(
	struct check *check, const struct rouse_observer *observer, struct rouse_error *error)
{
	const uint64_t count = check->file->flat.page_count;

	for (uint64_t index = 0; index < count; index += RUN_PAGES) {
		const uint64_t end = count - index > RUN_PAGES ? index + RUN_PAGES : count;

		if (rouse_cancelled(observer))
			return rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED,
				"cancelled before all of the flat file was checked");
		check_run(check, index, end);
		rouse_progress(observer, "verifying", end * ROUSE_IMAGE_PAGE_BYTES,
			count * ROUSE_IMAGE_PAGE_BYTES);
	}
	return 0;
}

int rouse_flat_verify(const char *path, rouse_damage_fn *damage, void *damage_user,
	const struct rouse_observer *observer, struct rouse_error *error)
{
	cleanup_with(rouse_flat_close) struct rouse_flat_file file;
	cleanup_free uint8_t *buffer = malloc((size_t)RUN_PAGES * ROUSE_IMAGE_PAGE_BYTES);
	struct check check = {
		.file = &file, .damage = damage, .damage_user = damage_user, .buffer = buffer};
	int code = rouse_flat_open(path, &file, error);

	if (code < 0)
		return code;
	if (buffer == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot verify the flat file");
	code = rouse_flat_load_table(&file, error);
	if (code == 0)
		code = check_pages(&check, observer, error);
	if (code == 0 && check.damages > 0)
		code = rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the flat file is damaged in %" PRIu64
			" places: make it anew with rouse convert --flat",
			check.damages);
	return code;
}
