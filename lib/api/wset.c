/* SPDX-License-Identifier: MIT */
/* Working sets as things of their own: saved, merged, compared, as text. */
#include "api/image.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/io.h"
#include "wset/wset_compare.h"
#include "wset/wset_merge.h"
#include "wset/wset_store.h"
#include "wset/wset_text.h"

#include <string.h>

#define LOCK_TIMEOUT_MS 30000
#define MAX_TEXT_BYTES (UINT64_C(1) << 34)

static void close_wset(struct rouse_wset **wset)
{
	rouse_wset_close(*wset);
}

static void close_image(struct rouse_image **image)
{
	rouse_image_close(*image);
}

int rouse_wset_save(const struct rouse_wset *wset, const char *path, struct rouse_error *error)
{
	cleanup_with(rouse_wset_store_unlock) struct rouse_wset_store store = ROUSE_WSET_STORE_INIT;
	int code = rouse_wset_store_lock(&store, path, LOCK_TIMEOUT_MS, error);

	return code == 0 ? rouse_wset_store_write(&store, wset, error) : code;
}

static int other_vm(struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"the working sets are of different VMs: their RAM blocks are not the same");
}

/* ---- Merging --------------------------------------------------------------------------------- */

static int check_sets(const struct rouse_wset *const *sets, size_t count, struct rouse_error *error)
{
	if (count == 0)
		return rouse_error_set(
			error, ROUSE_ERROR_USAGE, -EINVAL, "there is no working set to merge");
	for (size_t i = 1; i < count; i++) {
		if (!rouse_wset_same_vm(sets[0], sets[i]))
			return other_vm(error);
	}
	return 0;
}

int rouse_wset_merge(const struct rouse_wset *const *sets, size_t count,
	const struct rouse_wset_rules *rules, struct rouse_wset **merged, struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *sum = NULL;
	struct rouse_wset_rules complete = rules != NULL ? *rules : (struct rouse_wset_rules){0};
	int code = check_sets(sets, count, error);

	if (code == 0)
		code = rouse_wset_rules_complete(&complete, rouse_wset_vm_pages(sets[0]), error);
	for (size_t i = 0; code == 0 && i < count; i++) {
		struct rouse_wset *next = NULL;

		code = rouse_wset_combine(sum, sets[i], NULL, &complete, &next);
		if (code < 0)
			return rouse_error_errno(error, code, "cannot merge working sets");
		rouse_wset_close(sum);
		sum = next;
	}
	if (code < 0)
		return code;
	*merged = take_ptr(&sum);
	return 0;
}

/* Sets that are closed together. */
struct sets {
	struct rouse_wset **list;
	size_t count;
};

static void close_sets(struct sets *sets)
{
	for (size_t i = 0; i < sets->count; i++)
		rouse_wset_close(sets->list[i]);
	free(sets->list);
}

static int open_sets(
	const char *const *files, size_t count, struct sets *sets, struct rouse_error *error)
{
	int code = 0;

	sets->list = calloc(count + 1, sizeof(struct rouse_wset *));
	if (sets->list == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot merge working sets");
	for (; code == 0 && sets->count < count; sets->count += code == 0)
		code = rouse_wset_open(files[sets->count], &sets->list[sets->count], error);
	return code;
}

int rouse_wset_merge_files(const char *const *files, size_t count,
	const struct rouse_wset_rules *rules, const char *out, struct rouse_wset **merged,
	struct rouse_error *error)
{
	cleanup_with(rouse_wset_store_unlock) struct rouse_wset_store store = ROUSE_WSET_STORE_INIT;
	cleanup_with(close_sets) struct sets sets = {0};
	cleanup_with(close_wset) struct rouse_wset *sum = NULL;
	int code = rouse_wset_store_lock(&store, out, LOCK_TIMEOUT_MS, error);

	if (code == 0)
		code = open_sets(files, count, &sets, error);
	if (code == 0)
		code = rouse_wset_merge(
			(const struct rouse_wset *const *)sets.list, count, rules, &sum, error);
	if (code == 0)
		code = rouse_wset_store_write(&store, sum, error);
	if (code == 0)
		*merged = take_ptr(&sum);
	return code;
}

int rouse_wset_compare(const struct rouse_wset *a, const struct rouse_wset *b,
	struct rouse_wset_diff *diff, rouse_wset_diff_fn *only, void *user,
	struct rouse_error *error)
{
	int code;

	if (!rouse_wset_same_vm(a, b))
		return other_vm(error);
	code = rouse_wset_measure(a, b, diff, only, user);
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot compare working sets");
}

/* ---- Text ------------------------------------------------------------------------------------ */

/* A set without pages, with the blocks of an image. */
static int blocks_of_image(const char *path, struct rouse_wset **wset, struct rouse_error *error)
{
	cleanup_with(close_image) struct rouse_image *image = NULL;
	cleanup_with(close_wset) struct rouse_wset *w = NULL;
	const struct rouse_block *blocks;
	int code = rouse_image_open(path, &image, error);

	if (code < 0)
		return code;
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read %s", path);
	blocks = rouse_reader_blocks(image->reader, &w->block_count);
	w->blocks = calloc((size_t)w->block_count + 1, sizeof(*w->blocks));
	if (w->blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot read %s", path);
	for (uint32_t i = 0; i < w->block_count; i++) {
		(void)snprintf(w->blocks[i].name, sizeof(w->blocks[i].name), "%s", blocks[i].name);
		w->blocks[i].used_bytes = blocks[i].used_bytes;
	}
	*wset = take_ptr(&w);
	return 0;
}

static bool is_wset_file(const char *path)
{
	cleanup_fclose FILE *file = fopen(path, "re");
	char magic[sizeof(ROUSE_WSET_MAGIC) - 1];

	return file != NULL && fread(magic, 1, sizeof(magic), file) == sizeof(magic) &&
	       memcmp(magic, ROUSE_WSET_MAGIC, sizeof(magic)) == 0;
}

int rouse_wset_read_text(
	const char *path, const char *like, struct rouse_wset **wset, struct rouse_error *error)
{
	cleanup_with(close_wset) struct rouse_wset *blocks = NULL;
	cleanup_free char *text = NULL;
	size_t size = 0;
	int code = rouse_io_read_file(path, MAX_TEXT_BYTES, &text, &size);

	if (code < 0)
		return rouse_error_errno(error, code, "cannot read %s", path);
	if (like != NULL)
		code = is_wset_file(like) ? rouse_wset_open(like, &blocks, error)
					  : blocks_of_image(like, &blocks, error);
	if (code < 0)
		return code;
	code = rouse_wset_text_parse(text, size, blocks, wset, error);
	if (code < 0)
		(void)rouse_error_prefix(error, "%s", path);
	return code;
}

int rouse_wset_write_text(const struct rouse_wset *wset, int fd, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	size_t size = 0;
	int code = rouse_wset_text_encode(wset, &text, &size, error);

	if (code < 0)
		return code;
	code = rouse_io_write(fd, text, size);
	return code == 0 ? 0 : rouse_error_errno(error, code, "cannot write the text");
}
