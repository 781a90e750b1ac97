/* SPDX-License-Identifier: MIT */
/* What is written into an image comes out again; where it lies; what it costs. */
#include "base/io.h"
#include "image_fixture.h"

#include <fcntl.h>
#include <pthread.h>

#define PAGES 10000u

/* Every 3rd page zero, every 7th equal to page 1, the others all different. */
static uint64_t seed_of(uint64_t page)
{
	if (page % 3 == 0)
		return 0;
	return page % 7 == 0 ? 1 : page + 100;
}

static void write_pages(struct rouse_writer *writer)
{
	for (uint64_t page = 0; page < PAGES; page++)
		put_seed(writer, page, seed_of(page));
}

static void round_trip(const struct fixture *fixture, const struct rouse_layout *layout)
{
	struct rouse_writer *writer = begin_image(fixture->path, PAGES, layout, NULL, 0);
	struct open_image image;

	write_pages(writer);
	(void)end_image(writer);
	image = open_image(fixture->path);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
}

static void lz4_round_trip(void **state)
{
	struct rouse_layout layout = {.codec = ROUSE_CODEC_LZ4, .threads = 3};

	round_trip(*state, &layout);
}

static void strong_lz4_round_trip(void **state)
{
	struct rouse_layout layout = {.codec = ROUSE_CODEC_LZ4, .level = 9, .chunk_pages = 512};

	round_trip(*state, &layout);
}

static void zstd_round_trip(void **state)
{
	struct rouse_layout layout = {.codec = ROUSE_CODEC_ZSTD, .chunk_pages = 37};

	round_trip(*state, &layout);
}

static void uncompressed_round_trip(void **state)
{
	struct rouse_layout layout = {.codec = ROUSE_CODEC_NONE, .chunk_pages = 1};

	round_trip(*state, &layout);
}

static void pages_that_do_not_shrink_are_stored_as_they_are(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, 64, NULL, NULL, 0);
	unsigned char data[PAGE], found[PAGE];
	struct open_image image;
	struct rouse_chunk chunk;

	for (uint64_t page = 0; page < 64; page++) {
		unsigned char half[PAGE];

		fill_page(half, 2 * page + 1);
		memcpy(data, half, PAGE / 2);
		fill_page(half, 2 * page + 2);
		memcpy(data + PAGE / 2, half, PAGE / 2);
		assert_int_equal(rouse_writer_put_page(writer, page, data), 0);
	}
	(void)end_image(writer);
	image = open_image(fixture->path);
	read_page(&image, 63, found);
	assert_memory_equal(found, data, PAGE);
	assert_int_equal(rouse_reader_chunk(image.reader, 3, ROUSE_READ_URGENT, &chunk), 0);
	assert_int_equal(chunk.codec, ROUSE_CODEC_NONE);
	close_image(&image);
}

static void zero_pages_cost_nothing_and_equal_pages_are_stored_once(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_layout layout = {.codec = ROUSE_CODEC_NONE};
	struct rouse_writer *writer = begin_image(fixture->path, 1000, &layout, NULL, 0);
	struct rouse_writer_stats stats;
	struct open_image image;

	for (uint64_t page = 0; page < 1000; page++)
		put_seed(writer, page, page < 500 ? 0 : 7);
	put_seed(writer, 999, 8);
	stats = end_image(writer);
	assert_int_equal(stats.pages, 1000);
	assert_int_equal(stats.zero_pages, 500);
	assert_int_equal(stats.duplicate_pages, 498);
	assert_int_equal(stats.stored_bytes, 2 * PAGE);
	image = open_image(fixture->path);
	assert_page_is(&image, 499, 0);
	assert_page_is(&image, 500, 7);
	assert_page_is(&image, 998, 7);
	assert_page_is(&image, 999, 8);
	close_image(&image);
}

static void pages_that_differ_in_one_byte_are_different(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, PAGE, NULL, NULL, 0);
	unsigned char data[PAGE], found[PAGE];
	struct open_image image;

	fill_page(data, 5);
	for (uint64_t page = 0; page < PAGE; page++) {
		data[page] ^= 1;
		assert_int_equal(rouse_writer_put_page(writer, page, data), 0);
		data[page] ^= 1;
	}
	assert_int_equal(end_image(writer).duplicate_pages, 0);
	image = open_image(fixture->path);
	for (uint64_t page = 0; page < PAGE; page += 15) {
		read_page(&image, page, found);
		data[page] ^= 1;
		assert_memory_equal(found, data, PAGE);
		data[page] ^= 1;
	}
	close_image(&image);
}

static void the_last_content_of_a_page_wins(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer_touch touches[] = {{5, 10}, {6, 20}};
	struct rouse_writer *writer = begin_image(fixture->path, 10, NULL, touches, 2);
	struct open_image image;

	put_seed(writer, 1, 11);
	put_seed(writer, 2, 12);
	put_seed(writer, 3, 13);
	put_seed(writer, 5, 15);
	put_seed(writer, 6, 16);
	put_seed(writer, 1, 21);
	put_seed(writer, 2, 0);
	assert_int_equal(rouse_writer_put_zero(writer, 3), 0);
	put_seed(writer, 5, 25);
	assert_int_equal(rouse_writer_put_zero(writer, 6), 0);
	put_seed(writer, 7, 13); /* the old content of page 3 is still the same content */
	(void)end_image(writer);
	image = open_image(fixture->path);
	assert_page_is(&image, 1, 21);
	assert_page_is(&image, 2, 0);
	assert_page_is(&image, 3, 0);
	assert_page_is(&image, 5, 25);
	assert_page_is(&image, 6, 0);
	assert_page_is(&image, 7, 13);
	assert_page_is(&image, 8, 0);
	close_image(&image);
}

static void a_page_outside_of_the_vm_is_erange(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer *writer = begin_image(fixture->path, 10, NULL, NULL, 0);
	unsigned char data[PAGE];
	struct open_image image;
	uint64_t locator;

	fill_page(data, 1);
	assert_int_equal(rouse_writer_put_page(writer, 10, data), -ERANGE);
	assert_int_equal(rouse_writer_put_zero(writer, UINT64_MAX), -ERANGE);
	(void)end_image(writer);
	image = open_image(fixture->path);
	assert_int_equal(
		rouse_reader_locate(image.reader, 10, ROUSE_READ_URGENT, &locator), -ERANGE);
	close_image(&image);
}

static void sections_and_blocks_come_back_as_they_were(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_block blocks[] = {make_block("pc.ram", 100), make_block("pc.bios", 64),
		make_block("/rom@etc/acpi/tables", 32)};
	struct rouse_writer *writer = NULL;
	const struct rouse_block *found;
	struct open_image image;
	uint32_t count;
	size_t size;

	assert_int_equal(rouse_writer_create(fixture->path, NULL, &writer, NULL), 0);
	assert_int_equal(rouse_writer_set_blocks(writer, blocks, 3, NULL, 0, NULL), 0);
	put_seed(writer, 164, 3);
	assert_int_equal(
		rouse_writer_set_section(writer, ROUSE_SECTION_METADATA, "{\"a\": 1}", 8), 0);
	assert_int_equal(rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, "\0\1\2", 3), 0);
	assert_int_equal(rouse_writer_set_section(writer, ROUSE_SECTION_WSET, "x", 1), -EINVAL);
	(void)end_image(writer);
	image = open_image(fixture->path);
	assert_string_equal(
		rouse_reader_section(image.reader, ROUSE_SECTION_METADATA, &size), "{\"a\": 1}");
	assert_memory_equal(
		rouse_reader_section(image.reader, ROUSE_SECTION_DEVICES, &size), "\0\1\2", 3);
	assert_int_equal(size, 3);
	(void)rouse_reader_section(image.reader, ROUSE_SECTION_CONFIG, &size);
	assert_int_equal(size, 0);
	found = rouse_reader_blocks(image.reader, &count);
	assert_int_equal(count, 3);
	assert_string_equal(found[2].name, "/rom@etc/acpi/tables");
	assert_int_equal(found[2].first_page, 164);
	assert_int_equal(found[1].used_bytes, 64 * PAGE);
	assert_page_is(&image, 164, 3);
	close_image(&image);
}

static void devices_too_large_for_the_front_lie_behind(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_writer_touch touches[] = {{3, 1}};
	struct rouse_writer *writer = begin_image(fixture->path, 10, NULL, touches, 1);
	size_t size = 5u << 20, found;
	unsigned char *devices = malloc(size);
	struct open_image image;

	assert_non_null(devices);
	memset(devices, 0x5a, size);
	put_seed(writer, 3, 3);
	put_seed(writer, 4, 4);
	assert_int_equal(rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, devices, size), 0);
	(void)end_image(writer);
	image = open_image(fixture->path);
	assert_memory_equal(
		rouse_reader_section(image.reader, ROUSE_SECTION_DEVICES, &found), devices, size);
	assert_int_equal(found, size);
	assert_page_is(&image, 3, 3);
	assert_page_is(&image, 4, 4);
	close_image(&image);
	free(devices);
}

static void a_bad_layout_and_bad_blocks_are_refused(void **state)
{
	const struct fixture *fixture = *state;
	struct rouse_layout bad_level = {.codec = ROUSE_CODEC_LZ4, .level = 99};
	struct rouse_layout bad_pages = {.codec = ROUSE_CODEC_LZ4, .chunk_pages = 513};
	struct rouse_block twins[] = {make_block("a", 1), make_block("a", 1)};
	struct rouse_block nameless = make_block("", 1), odd = make_block("a", 1);
	struct rouse_writer_touch twice[] = {{0, 1}, {0, 2}}, outside[] = {{1, 1}};
	const struct {
		struct rouse_block *blocks;
		struct rouse_writer_touch *wset;
		uint32_t count, wset_count;
	} cases[] = {{twins, NULL, 2, 0}, {&nameless, NULL, 1, 0}, {&odd, NULL, 1, 0},
		{twins, NULL, 0, 0}, {twins, twice, 1, 2}, {twins, outside, 1, 1}};
	struct rouse_writer *writer = NULL;

	odd.used_bytes = 4095;
	assert_int_equal(rouse_writer_create(fixture->path, &bad_level, &writer, NULL), -EINVAL);
	assert_int_equal(rouse_writer_create(fixture->path, &bad_pages, &writer, NULL), -EINVAL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rouse_error error = {0};

		assert_int_equal(rouse_writer_create(fixture->path, NULL, &writer, NULL), 0);
		assert_int_equal(rouse_writer_set_blocks(writer, cases[i].blocks, cases[i].count,
					 cases[i].wset, cases[i].wset_count, &error),
			-EINVAL);
		assert_true(error.message[0] != '\0');
		rouse_writer_abort(writer);
	}
	assert_int_equal(fixture_count_files(fixture), 0);
}

/* ---- The working set ---- */

#define WSET_PAGES 100u

/* Scattered over the VM, in no order. */
static uint64_t wset_page(uint32_t index)
{
	return (UINT64_C(7919) * index + 5) % PAGES;
}

static void write_wset_image(const struct fixture *fixture)
{
	struct rouse_writer_touch touches[WSET_PAGES];
	struct rouse_writer *writer;

	for (uint32_t i = 0; i < WSET_PAGES; i++)
		touches[i] = (struct rouse_writer_touch){wset_page(i), i * 10};
	writer = begin_image(fixture->path, PAGES, NULL, touches, WSET_PAGES);
	write_pages(writer);
	assert_int_equal(rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, "dev", 3), 0);
	(void)end_image(writer);
}

static void every_page_is_right_with_a_working_set(void **state)
{
	struct open_image image;

	write_wset_image(*state);
	image = open_image(((struct fixture *)*state)->path);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_page_is(&image, page, seed_of(page));
	close_image(&image);
}

static void the_working_set_is_kept_in_order_with_its_times(void **state)
{
	const struct rouse_image_wset *wset;
	struct open_image image;

	write_wset_image(*state);
	image = open_image(((struct fixture *)*state)->path);
	wset = rouse_reader_wset(image.reader);
	assert_int_equal(wset->page_count, WSET_PAGES);
	for (uint32_t i = 0; i < WSET_PAGES; i++) {
		uint64_t locator;

		assert_int_equal(wset->pages[i].page, wset_page(i));
		assert_int_equal(wset->pages[i].time_us, i * 10);
		assert_int_equal(rouse_reader_locate(image.reader, wset->pages[i].page,
					 ROUSE_READ_BULK, &locator),
			0);
		assert_int_equal(locator, wset->pages[i].locator);
		assert_int_equal(locator == 0, seed_of(wset_page(i)) == 0);
	}
	close_image(&image);
}

static void the_working_set_lies_at_the_front_in_order_of_touch(void **state)
{
	const struct rouse_disk_superblock *superblock;
	const struct rouse_image_wset *wset;
	struct open_image image;
	uint64_t at = 0, highest = 0;

	write_wset_image(*state);
	image = open_image(((struct fixture *)*state)->path);
	wset = rouse_reader_wset(image.reader);
	superblock = rouse_reader_superblock(image.reader);
	for (unsigned int i = 0; i < ROUSE_SECTION_COUNT; i++) {
		const struct rouse_disk_section *section = &superblock->sections[i];

		if (le64_get(section->offset) + le64_get(section->length) > at)
			at = le64_get(section->offset) + le64_get(section->length);
	}
	/* The chunks follow the sections without a gap, and each other. */
	assert_true(wset->chunk_count > 0 && wset->chunk_count <= WSET_PAGES / 16 + 1);
	assert_int_equal(wset->chunks[0].offset, at);
	for (uint32_t i = 0; i < wset->chunk_count; i++) {
		struct rouse_chunk chunk;

		assert_int_equal(rouse_reader_chunk(image.reader, i, ROUSE_READ_BULK, &chunk), 0);
		assert_memory_equal(&chunk, &wset->chunks[i], sizeof(chunk));
		if (i > 0)
			assert_int_equal(chunk.offset, at);
		at = chunk.offset + chunk.stored_bytes;
	}
	assert_int_equal(at, le64_get(superblock->front_bytes));
	/* Pages that were touched later lie further behind, but for equal ones. */
	for (uint32_t i = 0; i < wset->page_count; i++) {
		uint64_t locator = wset->pages[i].locator;

		if (locator == 0 || seed_of(wset->pages[i].page) == 1)
			continue;
		assert_true(locator > highest);
		highest = locator;
	}
	close_image(&image);
}

/* A source that counts the reads which do not begin where the last one ended. */
struct watching_source {
	struct rouse_source base;
	struct rouse_source *file;
	uint64_t last_end, jumps;
};

static int watching_read(struct rouse_source *source, uint64_t offset, void *buffer, size_t size,
	enum rouse_read_priority priority)
{
	struct watching_source *watching = (struct watching_source *)source;

	watching->jumps += offset != watching->last_end;
	watching->last_end = offset + size;
	return rouse_source_read(watching->file, offset, buffer, size, priority);
}

static uint64_t watching_size(const struct rouse_source *source)
{
	return rouse_source_size(((const struct watching_source *)source)->file);
}

static void the_front_is_read_in_one_sweep(void **state)
{
	static const struct rouse_source_ops ops = {.read = watching_read, .size = watching_size};
	struct watching_source source = {.base.ops = &ops};
	const struct rouse_image_wset *wset;
	struct rouse_reader *reader = NULL;
	unsigned char buffer[16 * PAGE];

	write_wset_image(*state);
	assert_int_equal(
		rouse_file_source_open(((struct fixture *)*state)->path, NULL, &source.file, NULL),
		0);
	assert_int_equal(rouse_reader_open(&source.base, &reader, NULL), 0);
	wset = rouse_reader_wset(reader);
	for (uint32_t i = 0; i < wset->chunk_count; i++)
		assert_int_equal(rouse_source_read(&source.base, wset->chunks[i].offset, buffer,
					 wset->chunks[i].stored_bytes, ROUSE_READ_BULK),
			0);
	assert_int_equal(source.last_end, le64_get(rouse_reader_superblock(reader)->front_bytes));
	assert_int_equal(source.jumps, 0);
	rouse_reader_close(reader);
	rouse_source_destroy(source.file);
}

/* ---- Tables on demand ---- */

static void page_tables_are_read_when_needed_with_their_neighbours(void **state)
{
	const struct fixture *fixture = *state;
	uint64_t tables = 32, pages = tables * ROUSE_PAGE_TABLE_PAGES, locator;
	struct rouse_writer *writer = begin_image(fixture->path, pages, NULL, NULL, 0);
	struct rouse_source_stats before, after;
	struct open_image image;

	for (uint64_t i = 0; i < tables; i++)
		put_seed(writer, i * ROUSE_PAGE_TABLE_PAGES + 9, i + 1);
	(void)end_image(writer);
	image = open_image(fixture->path);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(rouse_reader_locate(image.reader, 10 * ROUSE_PAGE_TABLE_PAGES + 9,
				 ROUSE_READ_URGENT, &locator),
		0);
	assert_int_not_equal(locator, 0);
	rouse_source_get_stats(image.source, &after);
	assert_int_equal(after.reads - before.reads, 1);
	assert_int_equal(after.bytes - before.bytes, 8 * 32768);
	/* Seven more are there now. */
	for (uint64_t i = 10; i < 18; i++)
		assert_int_equal(rouse_reader_locate(image.reader, i * ROUSE_PAGE_TABLE_PAGES,
					 ROUSE_READ_URGENT, &locator),
			0);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(before.reads, after.reads);
	close_image(&image);
}

static void a_faults_page_table_comes_alone_where_reads_are_quick(void **state)
{
	const struct fixture *fixture = *state;
	uint64_t tables = 32, pages = tables * ROUSE_PAGE_TABLE_PAGES, locator;
	struct rouse_writer *writer = begin_image(fixture->path, pages, NULL, NULL, 0);
	struct rouse_source_stats before, after;
	struct open_image image;

	for (uint64_t i = 0; i < tables; i++)
		put_seed(writer, i * ROUSE_PAGE_TABLE_PAGES + 9, i + 1);
	(void)end_image(writer);
	image = open_image(fixture->path);
	rouse_reader_expect_quick_reads(image.reader);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(rouse_reader_locate(image.reader, 10 * ROUSE_PAGE_TABLE_PAGES + 9,
				 ROUSE_READ_URGENT, &locator),
		0);
	assert_int_not_equal(locator, 0);
	rouse_source_get_stats(image.source, &after);
	assert_int_equal(after.bytes - before.bytes, 32768);
	/* Nobody waits for these. */
	assert_int_equal(rouse_reader_locate(image.reader, 11 * ROUSE_PAGE_TABLE_PAGES + 9,
				 ROUSE_READ_BULK, &locator),
		0);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(before.bytes - after.bytes, 8 * 32768);
	close_image(&image);
}

static void loading_all_tables_takes_few_reads(void **state)
{
	const struct fixture *fixture = *state;
	uint64_t tables = 32, pages = tables * ROUSE_PAGE_TABLE_PAGES;
	struct rouse_writer *writer = begin_image(fixture->path, pages, NULL, NULL, 0);
	struct rouse_source_stats before, after;
	struct rouse_chunk chunk;
	struct open_image image;

	for (uint64_t i = 0; i < tables; i++)
		put_seed(writer, i * ROUSE_PAGE_TABLE_PAGES + 9, i + 1);
	(void)end_image(writer);
	image = open_image(fixture->path);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(rouse_reader_load_tables(image.reader, ROUSE_READ_BULK, NULL), 0);
	rouse_source_get_stats(image.source, &after);
	assert_int_equal(after.reads - before.reads, 2);
	for (uint64_t i = 0; i < tables; i++)
		assert_int_equal(rouse_reader_chunk(image.reader, 1, ROUSE_READ_URGENT, &chunk), 0);
	rouse_source_get_stats(image.source, &before);
	assert_int_equal(before.reads, after.reads);
	close_image(&image);
}

#define TABLES 32u

/* One page in each of many tables. */
static void write_many_tables(const struct fixture *fixture)
{
	struct rouse_writer *writer = begin_image(
		fixture->path, UINT64_C(1) * TABLES * ROUSE_PAGE_TABLE_PAGES, NULL, NULL, 0);

	for (uint64_t i = 0; i < TABLES; i++)
		put_seed(writer, i * ROUSE_PAGE_TABLE_PAGES + 9, i + 1);
	(void)end_image(writer);
}

static void damage_beside_a_table_does_not_hurt_it(void **state)
{
	const struct fixture *fixture = *state;
	struct open_image image;
	uint64_t offset, length, locator;
	int fd;

	write_many_tables(fixture);
	image = open_image(fixture->path);
	rouse_reader_page_table_place(image.reader, 11, &offset, &length);
	fd = open(fixture->path, O_WRONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(rouse_io_pwrite(fd, "damage", 6, offset + 100), 0);
	(void)close(fd);
	assert_page_is(&image, 10 * ROUSE_PAGE_TABLE_PAGES + 9, 11);
	assert_page_is(&image, 12 * ROUSE_PAGE_TABLE_PAGES + 9, 13);
	assert_int_equal(rouse_reader_locate(image.reader, 11 * ROUSE_PAGE_TABLE_PAGES + 9,
				 ROUSE_READ_URGENT, &locator),
		-EUCLEAN);
	assert_int_equal(rouse_reader_load_tables(image.reader, ROUSE_READ_BULK, NULL), -EUCLEAN);
	close_image(&image);
}

struct locator_thread {
	struct open_image *image;
	unsigned int first;
	enum rouse_read_priority priority;
	unsigned int wrong;
};

static void *locate_everywhere(void *argument)
{
	struct locator_thread *thread = argument;

	for (unsigned int i = 0; i < TABLES; i++) {
		uint64_t table = (thread->first + i * 7) % TABLES, locator;
		struct rouse_chunk chunk;

		if (rouse_reader_locate(thread->image->reader, table * ROUSE_PAGE_TABLE_PAGES + 9,
			    thread->priority, &locator) != 0 ||
			rouse_locator_chunk(locator) * 16 + rouse_locator_slot(locator) != table ||
			rouse_reader_chunk(thread->image->reader, rouse_locator_chunk(locator),
				thread->priority, &chunk) != 0)
			thread->wrong++;
	}
	return NULL;
}

static void many_threads_may_locate_at_once(void **state)
{
	const struct fixture *fixture = *state;

	write_many_tables(fixture);
	for (unsigned int round = 0; round < 20; round++) {
		struct open_image image = open_image(fixture->path);
		struct locator_thread threads[4];
		pthread_t ids[4];

		for (unsigned int i = 0; i < 4; i++) {
			threads[i] = (struct locator_thread){
				&image, i * 5, i % 2 == 0 ? ROUSE_READ_URGENT : ROUSE_READ_BULK, 0};
			assert_int_equal(
				pthread_create(&ids[i], NULL, locate_everywhere, &threads[i]), 0);
		}
		for (unsigned int i = 0; i < 4; i++) {
			(void)pthread_join(ids[i], NULL);
			assert_int_equal(threads[i].wrong, 0);
		}
		close_image(&image);
	}
}

int main(void)
{
#define image_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		image_test(lz4_round_trip),
		image_test(strong_lz4_round_trip),
		image_test(zstd_round_trip),
		image_test(uncompressed_round_trip),
		image_test(pages_that_do_not_shrink_are_stored_as_they_are),
		image_test(zero_pages_cost_nothing_and_equal_pages_are_stored_once),
		image_test(pages_that_differ_in_one_byte_are_different),
		image_test(the_last_content_of_a_page_wins),
		image_test(a_page_outside_of_the_vm_is_erange),
		image_test(sections_and_blocks_come_back_as_they_were),
		image_test(devices_too_large_for_the_front_lie_behind),
		image_test(a_bad_layout_and_bad_blocks_are_refused),
		image_test(every_page_is_right_with_a_working_set),
		image_test(the_working_set_is_kept_in_order_with_its_times),
		image_test(the_working_set_lies_at_the_front_in_order_of_touch),
		image_test(the_front_is_read_in_one_sweep),
		image_test(page_tables_are_read_when_needed_with_their_neighbours),
		image_test(a_faults_page_table_comes_alone_where_reads_are_quick),
		image_test(loading_all_tables_takes_few_reads),
		image_test(damage_beside_a_table_does_not_hurt_it),
		image_test(many_threads_may_locate_at_once),
	};

	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
