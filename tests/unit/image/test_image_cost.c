/* SPDX-License-Identifier: MIT */
/*
 * Invariant 7: what a restore costs before the guest runs grows with the working set, not with the
 * VM. Shown with sparse VMs of 1, 4 and 16 GiB that have the same working set of 100 MiB.
 */
#include "image_fixture.h"

#include <sys/resource.h>
#include <sys/stat.h>

#define GIB_PAGES (UINT64_C(1) << 18)
#define WSET_PAGES 25600u /* 100 MiB */

struct cost {
	uint64_t front_bytes, read_bytes, reads, memory, file_blocks;
	uint32_t chunks;
};

/* The set is scattered over the VM in an order of its own; no page comes twice. */
static uint64_t page_at(uint32_t index, uint64_t pages)
{
	return (index * UINT64_C(2654435761)) % pages;
}

static void write_vm(const char *path, uint64_t pages, uint32_t wset_pages)
{
	struct rouse_writer_touch *touches = calloc(wset_pages, sizeof(*touches));
	struct rouse_writer *writer;

	assert_non_null(touches);
	for (uint32_t i = 0; i < wset_pages; i++)
		touches[i] = (struct rouse_writer_touch){page_at(i, pages), i};
	writer = begin_image(path, pages, NULL, touches, wset_pages);
	for (uint32_t i = 0; i < wset_pages; i++)
		put_seed(writer, touches[i].page, i + 1);
	(void)end_image(writer);
	free(touches);
}

/* Does what a restore by working set does before the guest runs. */
static struct cost measure(const char *path)
{
	struct open_image image = open_image(path);
	const struct rouse_image_wset *wset = rouse_reader_wset(image.reader);
	struct rouse_source_stats stats;
	struct stat status;
	struct cost cost = {.chunks = wset->chunk_count};
	unsigned char *buffer, *plain = malloc(16 * PAGE);

	cost.front_bytes = le64_get(rouse_reader_superblock(image.reader)->front_bytes);
	buffer = malloc(cost.front_bytes);
	assert_non_null(buffer);
	assert_non_null(plain);
	for (uint32_t i = 0; i < wset->chunk_count; i++) {
		const struct rouse_chunk *chunk = &wset->chunks[i];

		assert_int_equal(rouse_source_read(image.source, chunk->offset, buffer,
					 chunk->stored_bytes, ROUSE_READ_BULK),
			0);
		assert_int_equal(rouse_chunk_decode(chunk, buffer, plain), 0);
	}
	rouse_source_get_stats(image.source, &stats);
	cost.read_bytes = stats.bytes;
	cost.reads = stats.reads - wset->chunk_count;
	cost.memory = rouse_reader_memory(image.reader);
	assert_int_equal(stat(path, &status), 0);
	cost.file_blocks = (uint64_t)status.st_blocks * 512;
	close_image(&image);
	free(buffer);
	free(plain);
	return cost;
}

static struct cost cost_of(const struct fixture *fixture, uint64_t gib, uint32_t wset_pages)
{
	write_vm(fixture->path, gib * GIB_PAGES, wset_pages);
	return measure(fixture->path);
}

/* 24 bytes of directory in the file and a pointer more in memory, for each 16 MiB of the VM. */
#define DIRECTORY_BYTES_PER_GIB (64u * 24u)
#define MEMORY_BYTES_PER_GIB (64u * 32u)

static void the_cost_before_the_guest_runs_does_not_grow_with_the_vm(void **state)
{
	struct cost base = cost_of(*state, 1, WSET_PAGES);
	static const uint64_t sizes[] = {4, 16};

	assert_int_equal(base.chunks, WSET_PAGES / 16);
	assert_true(base.reads <= 2);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct cost cost = cost_of(*state, sizes[i], WSET_PAGES);
		uint64_t more = sizes[i] - 1;

		assert_int_equal(cost.chunks, base.chunks);
		assert_int_equal(cost.reads, base.reads);
		/* The compressed bytes are the same; sections are padded to 8 bytes. */
		assert_true(
			cost.read_bytes <= base.read_bytes + more * DIRECTORY_BYTES_PER_GIB + 64);
		assert_true(cost.memory <= base.memory + more * MEMORY_BYTES_PER_GIB);
		print_message("%2d GiB: %llu bytes read, %llu of memory\n", (int)sizes[i],
			(unsigned long long)cost.read_bytes, (unsigned long long)cost.memory);
	}
}

static void the_cost_grows_with_the_working_set(void **state)
{
	struct cost small = cost_of(*state, 4, 1024), large = cost_of(*state, 4, 4096);

	assert_true(large.read_bytes - small.read_bytes > 3000 * PAGE / 3);
	assert_true(large.memory > small.memory);
}

static void a_sparse_vm_makes_a_sparse_file(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, 64 * GIB_PAGES, NULL, NULL, 0);
	struct stat status;

	put_seed(writer, 1, 1);
	put_seed(writer, 63 * GIB_PAGES, 2);
	(void)end_image(writer);
	assert_int_equal(stat(fixture->path, &status), 0);
	assert_true((uint64_t)status.st_blocks * 512 < 512u << 10);
}

static void writing_a_sparse_vm_costs_little_memory(void **state)
{
	const struct fixture *fixture = *state;
	struct rusage before, after;
	struct rouse_writer *writer;

	assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
	writer = begin_image(fixture->path, 1024 * GIB_PAGES, NULL, NULL, 0);
	for (uint64_t i = 0; i < 1024; i++)
		put_seed(writer, i * GIB_PAGES, 1 + i % 3);
	for (uint64_t i = 0; i < 1024; i += 2)
		assert_int_equal(rouse_writer_put_zero(writer, i * GIB_PAGES + 70000), 0);
	(void)end_image(writer);
	assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
	/*
	 * 1024 page tables of 32 KiB and the ring of chunks, several times that with a sanitizer;
	 * not the 2 GiB of a flat index.
	 */
	assert_true(after.ru_maxrss - before.ru_maxrss < 512 << 10);
}

int main(void)
{
#define image_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		image_test(writing_a_sparse_vm_costs_little_memory),
		image_test(the_cost_before_the_guest_runs_does_not_grow_with_the_vm),
		image_test(the_cost_grows_with_the_working_set),
		image_test(a_sparse_vm_makes_a_sparse_file),
	};

	return cmocka_run_group_tests_name("image_cost", tests, NULL, NULL);
}
