/* SPDX-License-Identifier: MIT */
#include "wset/wset_text.h"

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "wset/wset_merge.h"

#include <inttypes.h>
#include <string.h>

#define PAGE_BYTES 4096u
#define MAX_VM_PAGES (UINT64_C(1) << 32)
#define MAX_WORDS 4u

struct text_page {
	struct rouse_wset_page page;
	uint32_t line;
};

/* What a text has said so far. */
struct reading {
	struct rouse_wset *wset;
	struct text_page *pages;
	size_t room;
	uint32_t line;
	uint32_t most; /* the largest count */
	bool counted;  /* there are counts */
};

static int wrong(const struct reading *r, const char *what, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "line %u: %s", r->line, what);
}

/* Cuts @line into words; how many there are, MAX_WORDS + 1 for more than that. */
static unsigned int split(char *line, char *words[MAX_WORDS])
{
	char *rest = NULL;
	unsigned int count = 0;

	for (char *word = strtok_r(line, " \t", &rest); word != NULL;
		word = strtok_r(NULL, " \t", &rest)) {
		if (count == MAX_WORDS)
			return MAX_WORDS + 1;
		words[count++] = word;
	}
	return count;
}

static bool read_number(const char *word, uint64_t max, uint64_t *number)
{
	*number = 0;
	if (*word == '\0')
		return false;
	for (; *word != '\0'; word++) {
		if (*word < '0' || *word > '9' || *number > (UINT64_MAX - 9) / 10)
			return false;
		*number = *number * 10 + (uint64_t)(*word - '0');
	}
	return *number <= max;
}

/* block USED_BYTES NAME: @text begins behind the word. */
static int read_block(struct reading *r, char *text, struct rouse_error *error)
{
	struct rouse_wset *wset = r->wset;
	struct rouse_wset_block *blocks;
	uint64_t used_bytes;
	char *number = text + strspn(text, " \t"), *name = number + strcspn(number, " \t");

	if (*name != '\0')
		*name++ = '\0';
	name += strspn(name, " \t");
	if (!read_number(number, MAX_VM_PAGES * PAGE_BYTES, &used_bytes) ||
		used_bytes % PAGE_BYTES != 0 || *name == '\0' ||
		strlen(name) >= sizeof(blocks->name))
		return wrong(r, "a block is `block USED_BYTES NAME`, of whole pages", error);
	if (wset->block_count == ROUSE_WSET_MAX_BLOCKS)
		return wrong(r, "there are too many blocks", error);
	blocks = realloc(wset->blocks, (wset->block_count + 1) * sizeof(*blocks));
	if (blocks == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	wset->blocks = blocks;
	blocks[wset->block_count] = (struct rouse_wset_block){.used_bytes = used_bytes};
	memcpy(blocks[wset->block_count++].name, name, strlen(name));
	if (rouse_wset_vm_pages(wset) > MAX_VM_PAGES)
		return wrong(r, "the VM is beyond 16 TiB", error);
	return 0;
}

/* The lines that come before the pages. 1: it was none of them. */
static int read_head(struct reading *r, char *line, struct rouse_error *error)
{
	const size_t length = strcspn(line, " \t");
	uint64_t runs;
	char *words[MAX_WORDS];

	if (line[0] >= '0' && line[0] <= '9')
		return 1;
	if (r->wset->page_count > 0)
		return wrong(r, "behind the first page there are pages only", error);
	if (length == 5 && strncmp(line, "block", 5) == 0)
		return read_block(r, line + length, error);
	if (strcmp(line, "complete") == 0) {
		r->wset->flags |= ROUSE_WSET_FLAG_COMPLETE;
		return 0;
	}
	if (split(line, words) != 2 || strcmp(words[0], "runs") != 0)
		return wrong(r, "neither a page nor `block`, `runs` or `complete`", error);
	if (!read_number(words[1], ROUSE_WSET_MAX_RUNS, &runs) || runs == 0)
		return wrong(r, "the number of runs makes no sense", error);
	r->wset->runs = (uint32_t)runs;
	return 0;
}

static int add_page(
	struct reading *r, const struct rouse_wset_page *page, struct rouse_error *error)
{
	if (r->wset->page_count == ROUSE_WSET_MAX_PAGES)
		return wrong(r, "there are more pages than a working set can hold", error);
	if (r->wset->page_count == r->room) {
		size_t room = r->room > 0 ? r->room * 2 : 1024;
		struct text_page *more = realloc(r->pages, room * sizeof(*more));

		if (more == NULL)
			return rouse_error_errno(error, -ENOMEM, "working set");
		r->pages = more;
		r->room = room;
	}
	r->pages[r->wset->page_count++] = (struct text_page){.page = *page, .line = r->line};
	return 0;
}

static int read_page(struct reading *r, char *line, struct rouse_error *error)
{
	char *words[MAX_WORDS];
	unsigned int count = split(line, words);
	uint64_t page, time_us, vcpu = ROUSE_WSET_VCPU_UNKNOWN, touches = 1;

	if (count < 2 || count > MAX_WORDS)
		return wrong(r, "a page is `PAGE TIME_US [VCPU [COUNT]]`", error);
	if (!read_number(words[0], MAX_VM_PAGES - 1, &page))
		return wrong(r, "the page number makes no sense", error);
	if (!read_number(words[1], UINT32_MAX, &time_us))
		return wrong(r, "the time makes no sense", error);
	if (count > 2 && strcmp(words[2], "-") != 0 &&
		!read_number(words[2], ROUSE_WSET_VCPU_UNKNOWN - 1, &vcpu))
		return wrong(r, "the vCPU makes no sense", error);
	if (count > 3 && (!read_number(words[3], UINT16_MAX, &touches) || touches == 0))
		return wrong(r, "the count makes no sense", error);
	r->counted = r->counted || count > 3;
	if (touches > r->most)
		r->most = (uint32_t)touches;
	return add_page(r,
		&(struct rouse_wset_page){.page = (uint32_t)page,
			.time_us = (uint32_t)time_us,
			.vcpu = (uint16_t)vcpu,
			.flags = ROUSE_WSET_PAGE_FAULTED,
			.count = (uint16_t)touches},
		error);
}

static int read_line(struct reading *r, const char *text, size_t length, struct rouse_error *error)
{
	char line[ROUSE_WSET_TEXT_MAX_LINE + 1];
	int code;

	r->line++;
	if (length > ROUSE_WSET_TEXT_MAX_LINE)
		return wrong(r, "it is too long", error);
	if (memchr(text, '\0', length) != NULL)
		return wrong(r, "there is a NUL in it", error);
	memcpy(line, text, length);
	line[length] = '\0';
	if (line[strspn(line, " \t")] == '\0' || line[0] == '#')
		return 0;
	code = read_head(r, line, error);
	return code == 1 ? read_page(r, line, error) : code;
}

/* ---- When all lines are read ----------------------------------------------------------------- */

static int settle_blocks(
	struct reading *r, const struct rouse_wset *like, struct rouse_error *error)
{
	struct rouse_wset *wset = r->wset, *blocks = NULL;

	if (wset->block_count > 0) {
		if (like == NULL || rouse_wset_same_vm(wset, like))
			return 0;
		return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
			"the text is of another VM: its blocks are others");
	}
	if (like == NULL)
		return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
			"the text does not say what RAM blocks its VM has: name an image or a "
			"working set of that VM with --like");
	if (rouse_wset_new_like(like, &blocks) < 0)
		return rouse_error_errno(error, -ENOMEM, "working set");
	free(wset->blocks);
	wset->blocks = take_ptr(&blocks->blocks);
	wset->block_count = like->block_count;
	rouse_wset_close(blocks);
	return 0;
}

static int compare_touch(const void *x, const void *y)
{
	const struct text_page *a = x, *b = y;

	if (a->page.time_us != b->page.time_us)
		return a->page.time_us < b->page.time_us ? -1 : 1;
	return (a->line > b->line) - (a->line < b->line);
}

/* What a count says of the page's history. */
static void settle_history(const struct reading *r, struct rouse_wset_page *page)
{
	const uint32_t runs = r->wset->runs;

	if (runs == 0) {
		page->count = 0;
		return;
	}
	page->looks = runs < UINT16_MAX ? (uint16_t)runs : UINT16_MAX;
	page->last = runs;
	page->weight = (uint16_t)((uint64_t)page->count * ROUSE_WSET_WEIGHT_ONE / page->looks);
}

static int settle_pages(struct reading *r, struct rouse_error *error)
{
	cleanup_with(rouse_bitmap_finish) struct rouse_bitmap seen = {0};
	struct rouse_wset *wset = r->wset;
	const uint64_t total = rouse_wset_vm_pages(wset);

	if (r->counted && wset->runs == 0)
		wset->runs = r->most;
	wset->pages = calloc((size_t)wset->page_count + 1, sizeof(*wset->pages));
	wset->waiting = calloc(1, sizeof(*wset->waiting));
	if (wset->pages == NULL || wset->waiting == NULL || rouse_bitmap_init(&seen, total + 1) < 0)
		return rouse_error_errno(error, -ENOMEM, "working set");
	for (uint32_t i = 0; i < wset->page_count; i++) {
		const struct rouse_wset_page *page = &r->pages[i].page;

		r->line = r->pages[i].line;
		if (page->page >= total)
			return wrong(r, "the page is outside the VM", error);
		if (rouse_bitmap_test_and_set(&seen, page->page))
			return wrong(r, "the page is there twice", error);
		if (wset->runs > 0 && page->count > wset->runs)
			return wrong(r, "more restores touched the page than there were", error);
	}
	if (wset->page_count > 0)
		qsort(r->pages, wset->page_count, sizeof(*r->pages), compare_touch);
	for (uint32_t i = 0; i < wset->page_count; i++) {
		settle_history(r, &r->pages[i].page);
		wset->pages[i] = r->pages[i].page;
	}
	return 0;
}

static void reading_finish(struct reading *r)
{
	free(r->pages);
	rouse_wset_close(r->wset);
}

int rouse_wset_text_parse(const char *text, size_t size, const struct rouse_wset *like,
	struct rouse_wset **wset, struct rouse_error *error)
{
	cleanup_with(reading_finish) struct reading r = {.wset = calloc(1, sizeof(*r.wset))};
	int code = 0;

	if (r.wset == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	for (size_t at = 0; code == 0 && at < size;) {
		const char *end = memchr(text + at, '\n', size - at);
		size_t length = end != NULL ? (size_t)(end - (text + at)) : size - at;

		code = read_line(&r, text + at, length, error);
		at += length + 1;
	}
	if (code == 0)
		code = settle_blocks(&r, like, error);
	if (code == 0)
		code = settle_pages(&r, error);
	if (code < 0)
		return code;
	*wset = take_ptr(&r.wset);
	return 0;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void print_page(
	FILE *file, const struct rouse_wset *wset, const struct rouse_wset_page *page)
{
	fprintf(file, "%" PRIu32 " %" PRIu32, page->page, page->time_us);
	if (page->vcpu != ROUSE_WSET_VCPU_UNKNOWN)
		fprintf(file, " %u", page->vcpu);
	else if (wset->runs > 0)
		fputs(" -", file);
	if (wset->runs > 0)
		fprintf(file, " %u", page->count);
	fputc('\n', file);
}

int rouse_wset_text_encode(
	const struct rouse_wset *wset, char **text, size_t *size, struct rouse_error *error)
{
	FILE *file;
	bool failed;

	for (uint32_t i = 0; i < wset->block_count; i++) {
		const char *name = wset->blocks[i].name;

		if (strchr(name, '\n') != NULL || name[0] == ' ' || name[0] == '\t')
			return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EINVAL,
				"the name of RAM block %u cannot be written as text", i);
	}
	file = open_memstream(text, size);
	if (file == NULL)
		return rouse_error_errno(error, -ENOMEM, "working set");
	for (uint32_t i = 0; i < wset->block_count; i++)
		fprintf(file, "block %" PRIu64 " %s\n", wset->blocks[i].used_bytes,
			wset->blocks[i].name);
	if (wset->runs > 0)
		fprintf(file, "runs %" PRIu32 "\n", wset->runs);
	if (wset->flags & ROUSE_WSET_FLAG_COMPLETE)
		fputs("complete\n", file);
	fprintf(file, "# page, microseconds, vCPU%s\n",
		wset->runs > 0 ? ", restores that touched it" : "");
	for (uint32_t i = 0; i < wset->page_count; i++)
		print_page(file, wset, &wset->pages[i]);
	failed = ferror(file) != 0;
	if (fclose(file) == 0 && !failed)
		return 0;
	free(*text);
	*text = NULL;
	return rouse_error_errno(error, -ENOMEM, "working set");
}
