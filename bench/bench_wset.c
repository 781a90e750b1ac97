/* SPDX-License-Identifier: MIT */
/*
 * Working sets as text, for the benchmarks:
 *
 *	bench-wset blocks IMAGE       the RAM blocks: "first-page pages name" of each
 *	bench-wset list FILE          the set in an image, or in a file of its own: "page us" of
 *each page, in order bench-wset make IMAGE FILE    writes a working-set file for the image, of
 *"page us [vcpu]" lines
 */
#include "bench_vm.h"

#include "base/cleanup.h"
#include "base/error.h"
#include "wset/wset.h"

#include <stdlib.h>
#include <string.h>

static int list_blocks(const char *image, struct rouse_error *error)
{
	struct bench_vm vm;
	int code = bench_vm_open_image(&vm, image, error);

	for (uint32_t i = 0; code == 0 && i < vm.block_count; i++)
		printf("%llu %llu %s\n", (unsigned long long)vm.blocks[i].first_page,
			(unsigned long long)(vm.blocks[i].used_bytes / QEMU_PAGE_BYTES),
			vm.blocks[i].name);
	bench_vm_close(&vm);
	return code;
}

static int list_image(const char *image, struct rouse_error *error)
{
	const struct rouse_image_wset *set;
	struct bench_vm vm;
	int code = bench_vm_open_image(&vm, image, error);

	set = code == 0 ? rouse_reader_wset(vm.reader) : NULL;
	for (uint32_t i = 0; set != NULL && i < set->page_count; i++)
		printf("%llu %u\n", (unsigned long long)set->pages[i].page, set->pages[i].time_us);
	bench_vm_close(&vm);
	return code;
}

static int list_pages(const char *path, struct rouse_error *error)
{
	struct rouse_wset *wset = NULL;

	/* If it is not a file of its own it is an image, or the error about that is the better one.
	 */
	if (rouse_wset_open(path, &wset, NULL) < 0)
		return list_image(path, error);
	for (uint32_t i = 0; i < wset->page_count; i++)
		printf("%u %u\n", wset->pages[i].page, wset->pages[i].time_us);
	rouse_wset_close(wset);
	return 0;
}

/* The pages on standard input. */
static int read_pages(struct rouse_wset *wset, uint64_t limit, struct rouse_error *error)
{
	unsigned long long page;
	unsigned int time_us, vcpu;
	char line[128];

	while (fgets(line, sizeof(line), stdin) != NULL) {
		int words = sscanf(line, "%llu %u %u", &page, &time_us, &vcpu);

		if (words < 2 || page >= limit)
			return rouse_error_set(error, ROUSE_ERROR_USAGE, -EINVAL,
				"not a page of the image and a time: %s", line);
		wset->pages[wset->page_count++] = (struct rouse_wset_page){.page = (uint32_t)page,
			.time_us = time_us,
			.vcpu = words > 2 ? (uint16_t)vcpu : ROUSE_WSET_VCPU_UNKNOWN,
			.flags = ROUSE_WSET_PAGE_FAULTED};
		if (wset->page_count == limit)
			break;
	}
	return 0;
}

/* An empty set for the image, with room for all of its pages. */
static int prepare(const struct bench_vm *vm, struct rouse_wset *wset, struct rouse_error *error)
{
	wset->blocks = calloc(vm->block_count, sizeof(*wset->blocks));
	wset->pages = calloc(rouse_reader_page_count(vm->reader), sizeof(*wset->pages));
	if (wset->blocks == NULL || wset->pages == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot make a working set");
	for (; wset->block_count < vm->block_count; wset->block_count++) {
		struct rouse_wset_block *block = &wset->blocks[wset->block_count];

		memcpy(block->name, vm->blocks[wset->block_count].name, sizeof(block->name));
		block->used_bytes = vm->blocks[wset->block_count].used_bytes;
	}
	return 0;
}

static int make_set(const char *image, const char *path, struct rouse_error *error)
{
	struct rouse_wset wset = {.flags = ROUSE_WSET_FLAG_COMPLETE};
	struct bench_vm vm;
	int code = bench_vm_open_image(&vm, image, error);

	if (code == 0)
		code = prepare(&vm, &wset, error);
	if (code == 0)
		code = read_pages(&wset, rouse_reader_page_count(vm.reader), error);
	if (code == 0)
		code = rouse_wset_write(&wset, path, error);
	free(wset.blocks);
	free(wset.pages);
	bench_vm_close(&vm);
	return code;
}

int main(int argc, char **argv)
{
	struct rouse_error error = {0};
	const char *verb = argc > 1 ? argv[1] : "";
	int code = -EINVAL;

	if (argc == 3 && strcmp(verb, "blocks") == 0)
		code = list_blocks(argv[2], &error);
	else if (argc == 3 && strcmp(verb, "list") == 0)
		code = list_pages(argv[2], &error);
	else if (argc == 4 && strcmp(verb, "make") == 0)
		code = make_set(argv[2], argv[3], &error);
	else
		(void)rouse_error_set(&error, ROUSE_ERROR_USAGE, code,
			"usage: bench-wset blocks IMAGE | list FILE | make IMAGE FILE");
	if (code < 0)
		(void)fprintf(stderr, "%s\n", error.message);
	return code < 0;
}
