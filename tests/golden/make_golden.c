/* SPDX-License-Identifier: MIT */
/*
 * Makes the golden images: make-golden DIRECTORY
 *
 *   good/NAME.rouse   one for each codec, with and without a working set
 *   good/NAME.hash    XXH3-64 of its pages in order and of its sections, as hex
 *   bad/NAME.rouse    a good one with one thing wrong, checksums put right where the wrong thing
 *                     lies behind one
 *   bad/NAME.error    words that the message about it has in it
 *
 * They are in the repository. Make new ones only for a new version of the format, into a directory
 * of their own: what old versions wrote must stay readable.
 */
#include "base/io.h"
#include "golden.h"
#include "image/image_writer.h"

#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE (1u << 20)

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0 || rouse_io_write(fd, bytes, size) < 0)
		die(path);
	(void)close(fd);
}

/* ---- Good ones ---- */

static const struct rouse_writer_touch touches[] = {
	{30, 100}, {2, 250}, {45, 300}, {3, 300}, {31, 1000000}, {8, 1000001}};

static void make_good(const char *directory, const char *name, enum rouse_codec codec, bool wset)
{
	struct rouse_block blocks[] = {
		{.name = "pc.ram", .used_bytes = 40 * GOLDEN_PAGE, .page_bytes = GOLDEN_PAGE},
		{.name = "pc.bios", .used_bytes = 6 * GOLDEN_PAGE, .page_bytes = GOLDEN_PAGE},
		{.name = "/rom@etc/table-loader",
			.used_bytes = GOLDEN_PAGE,
			.page_bytes = GOLDEN_PAGE},
	};
	struct rouse_layout layout = {.codec = codec, .chunk_pages = 4, .threads = 1};
	static const char metadata[] = "{\"format\": 1, \"vmm\": \"golden\"}";
	unsigned char page[GOLDEN_PAGE];
	struct rouse_error error = {0};
	struct rouse_writer *writer;
	char path[PATH_MAX], hash[32];

	(void)snprintf(path, sizeof(path), "%s/good/%s.rouse", directory, name);
	if (rouse_writer_create(path, &layout, &writer, &error) < 0 ||
		rouse_writer_set_blocks(writer, blocks, 3, touches,
			wset ? sizeof(touches) / sizeof(touches[0]) : 0, &error) < 0)
		die(error.message);
	for (uint64_t i = 0; i < GOLDEN_PAGES; i++) {
		golden_fill(page, i);
		if (rouse_writer_put_page(writer, i, page) < 0)
			die("put_page");
	}
	if (rouse_writer_set_section(
		    writer, ROUSE_SECTION_METADATA, metadata, sizeof(metadata) - 1) < 0 ||
		rouse_writer_set_section(writer, ROUSE_SECTION_CONFIG, "configuration", 13) < 0 ||
		rouse_writer_set_section(writer, ROUSE_SECTION_DEVICES, "devices", 7) < 0 ||
		rouse_writer_commit(writer, NULL, &error) < 0)
		die(error.message);
	if (chmod(path, 0644) < 0)
		die(path);
	(void)snprintf(hash, sizeof(hash), "%016llx\n", (unsigned long long)golden_hash(path));
	(void)snprintf(path, sizeof(path), "%s/good/%s.hash", directory, name);
	write_file(path, hash, strlen(hash));
}

/* ---- Bad ones ---- */

/* An image in memory that is about to be spoiled. */
struct victim {
	unsigned char *bytes;
	size_t size;
	struct rouse_disk_superblock *superblock;
	bool keep_superblock; /* its checksum is left as it is */
};

typedef void spoil_fn(struct victim *victim);

static unsigned char *section(struct victim *v, enum rouse_section_type type)
{
	return v->bytes + le64_get(v->superblock->sections[type].offset);
}

static void fix_section(struct victim *v, enum rouse_section_type type)
{
	struct rouse_disk_section *place = &v->superblock->sections[type];

	place->checksum = le64_make(XXH3_64bits(section(v, type), le64_get(place->length)));
}

static struct rouse_disk_table *directory_of(struct victim *v, enum rouse_section_type type)
{
	return (struct rouse_disk_table *)(void *)section(v, type);
}

/* The only page table or chunk table. */
static unsigned char *table(struct victim *v, enum rouse_section_type type)
{
	return v->bytes + le64_get(directory_of(v, type)->offset);
}

static void fix_table(struct victim *v, enum rouse_section_type type)
{
	struct rouse_disk_table *entry = directory_of(v, type);
	size_t entry_bytes =
		type == ROUSE_SECTION_PAGE_DIR ? sizeof(le64_t) : sizeof(struct rouse_disk_chunk);

	entry->checksum =
		le64_make(XXH3_64bits(table(v, type), le32_get(entry->entries) * entry_bytes));
	fix_section(v, type);
}

static struct rouse_disk_chunk *chunk(struct victim *v, unsigned int number)
{
	return (struct rouse_disk_chunk *)(void *)table(v, ROUSE_SECTION_CHUNK_DIR) + number;
}

static le64_t *locator(struct victim *v, unsigned int page)
{
	return (le64_t *)(void *)table(v, ROUSE_SECTION_PAGE_DIR) + page;
}

static struct rouse_disk_wset *wset_head(struct victim *v)
{
	return (struct rouse_disk_wset *)(void *)section(v, ROUSE_SECTION_WSET);
}

static struct rouse_disk_chunk *wset_chunk(struct victim *v)
{
	return (struct rouse_disk_chunk *)(void *)(wset_head(v) + 1);
}

static struct rouse_disk_wset_entry *wset_entry(struct victim *v, unsigned int number)
{
	return (struct rouse_disk_wset_entry *)(void *)(wset_chunk(v) +
							le32_get(wset_head(v)->chunk_count)) +
	       number;
}

static void empty(struct victim *v)
{
	v->size = 0;
	v->keep_superblock = true;
}

static void truncated_superblock(struct victim *v)
{
	v->size = 2000;
	v->keep_superblock = true;
}

static void truncated(struct victim *v)
{
	v->size -= 1000;
}

static void bad_magic(struct victim *v)
{
	v->superblock->magic[3] = 'x';
}

static void newer_version(struct victim *v)
{
	v->superblock->version = le32_make(ROUSE_IMAGE_VERSION + 1);
}

static void version_zero(struct victim *v)
{
	v->superblock->version = le32_make(0);
}

static void unknown_incompat(struct victim *v)
{
	v->superblock->incompat = le64_make(UINT64_C(1) << 40);
}

static void superblock_checksum(struct victim *v)
{
	v->superblock->reserved[7] ^= 1;
	v->keep_superblock = true;
}

static void header_bytes(struct victim *v)
{
	v->superblock->header_bytes = le32_make(8192);
}

static void page_bytes(struct victim *v)
{
	v->superblock->page_bytes = le32_make(16384);
}

static void page_count(struct victim *v)
{
	v->superblock->page_count = le64_make(ROUSE_IMAGE_MAX_PAGES + 1);
}

static void near_chunks(struct victim *v)
{
	v->superblock->near_chunks = le64_make(le64_get(v->superblock->chunk_count) + 1);
}

static void chunk_count(struct victim *v)
{
	v->superblock->chunk_count = le64_make(UINT64_MAX);
}

static void chunk_pages(struct victim *v)
{
	v->superblock->chunk_pages = le32_make(ROUSE_IMAGE_MAX_CHUNK_PAGES + 1);
}

static void block_count(struct victim *v)
{
	v->superblock->block_count = le32_make(ROUSE_IMAGE_MAX_BLOCKS + 1);
}

static void section_count(struct victim *v)
{
	v->superblock->section_count = le32_make(17);
}

static void zero_pages(struct victim *v)
{
	v->superblock->zero_pages = le64_make(GOLDEN_PAGES + 1);
}

static void wrong_zero_pages(struct victim *v)
{
	v->superblock->zero_pages = le64_make(le64_get(v->superblock->zero_pages) - 1);
}

static void section_outside(struct victim *v)
{
	v->superblock->sections[ROUSE_SECTION_DEVICES].offset = le64_make(v->size - 6);
}

static void section_wraps(struct victim *v)
{
	v->superblock->sections[ROUSE_SECTION_DEVICES].offset = le64_make(UINT64_MAX - 2);
}

static void section_length(struct victim *v)
{
	v->superblock->sections[ROUSE_SECTION_PAGE_DIR].length = le64_make(48);
}

static void section_too_long(struct victim *v)
{
	v->superblock->sections[ROUSE_SECTION_DEVICES].length =
		le64_make(ROUSE_IMAGE_MAX_SECTION + 1);
}

static void section_checksum(struct victim *v)
{
	*section(v, ROUSE_SECTION_METADATA) ^= 1;
}

static void block_name(struct victim *v)
{
	section(v, ROUSE_SECTION_BLOCKS)[sizeof(struct rouse_disk_block) + 1] = '\n';
	fix_section(v, ROUSE_SECTION_BLOCKS);
}

static void block_name_twice(struct victim *v)
{
	unsigned char *first = section(v, ROUSE_SECTION_BLOCKS);
	unsigned char *second = first + sizeof(struct rouse_disk_block) + 6;
	struct rouse_disk_block *block = (struct rouse_disk_block *)(void *)second;

	/* "pc.bios" becomes "pc.ram", and what remains of it belongs to nothing. */
	memcpy(second + sizeof(*block), first + sizeof(*block), 6);
	block->name_bytes = 6;
	fix_section(v, ROUSE_SECTION_BLOCKS);
}

static void block_sum(struct victim *v)
{
	((struct rouse_disk_block *)(void *)section(v, ROUSE_SECTION_BLOCKS))->used_bytes =
		le64_make(39 * GOLDEN_PAGE);
	fix_section(v, ROUSE_SECTION_BLOCKS);
}

static void block_size(struct victim *v)
{
	((struct rouse_disk_block *)(void *)section(v, ROUSE_SECTION_BLOCKS))->used_bytes =
		le64_make(40 * GOLDEN_PAGE + 1);
	fix_section(v, ROUSE_SECTION_BLOCKS);
}

static void wset_page_twice(struct victim *v)
{
	wset_entry(v, 3)->page = wset_entry(v, 0)->page;
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_page_outside(struct victim *v)
{
	wset_entry(v, 1)->page = le32_make(GOLDEN_PAGES);
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_locator(struct victim *v)
{
	wset_entry(v, 1)->locator = le64_make(rouse_locator_make(100, 0));
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_counts(struct victim *v)
{
	wset_head(v)->page_count = le32_make(UINT32_MAX);
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_codec(struct victim *v)
{
	wset_chunk(v)->codec = 77;
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_elsewhere(struct victim *v)
{
	le64_t other = wset_entry(v, 1)->locator;

	wset_entry(v, 1)->locator = wset_entry(v, 0)->locator;
	wset_entry(v, 0)->locator = other;
	fix_section(v, ROUSE_SECTION_WSET);
}

static void wset_other_chunk(struct victim *v)
{
	wset_chunk(v)->checksum = le64_make(1);
	fix_section(v, ROUSE_SECTION_WSET);
}

static void page_dir_outside(struct victim *v)
{
	directory_of(v, ROUSE_SECTION_PAGE_DIR)->offset = le64_make(v->size);
	fix_section(v, ROUSE_SECTION_PAGE_DIR);
}

static void page_dir_entries(struct victim *v)
{
	directory_of(v, ROUSE_SECTION_PAGE_DIR)->entries = le32_make(ROUSE_PAGE_TABLE_PAGES);
	fix_section(v, ROUSE_SECTION_PAGE_DIR);
}

static void chunk_dir_absent(struct victim *v)
{
	directory_of(v, ROUSE_SECTION_CHUNK_DIR)->offset = le64_make(0);
	fix_section(v, ROUSE_SECTION_CHUNK_DIR);
}

static void page_table_checksum(struct victim *v)
{
	*table(v, ROUSE_SECTION_PAGE_DIR) ^= 1;
}

static void chunk_table_checksum(struct victim *v)
{
	*table(v, ROUSE_SECTION_CHUNK_DIR) ^= 1;
}

static void locator_chunk(struct victim *v)
{
	*locator(v, 5) = le64_make(rouse_locator_make(le64_get(v->superblock->chunk_count), 0));
	fix_table(v, ROUSE_SECTION_PAGE_DIR);
}

static void locator_without_chunk(struct victim *v)
{
	*locator(v, 5) = le64_make(3);
	fix_table(v, ROUSE_SECTION_PAGE_DIR);
}

/* Below chunk_pages, but the last chunk is not full. */
static void locator_slot(struct victim *v)
{
	uint64_t last = le64_get(v->superblock->chunk_count) - 1;

	*locator(v, 5) = le64_make(rouse_locator_make(last, le16_get(chunk(v, last)->pages)));
	fix_table(v, ROUSE_SECTION_PAGE_DIR);
}

static void chunk_outside(struct victim *v)
{
	chunk(v, 2)->offset = le64_make(v->size - 1);
	fix_table(v, ROUSE_SECTION_CHUNK_DIR);
}

static void chunk_checksum(struct victim *v)
{
	v->bytes[le64_get(chunk(v, 3)->offset) + 9] ^= 0x80;
}

static void fix_chunk(struct victim *v, unsigned int number)
{
	chunk(v, number)->checksum =
		le64_make(XXH3_64bits(v->bytes + le64_get(chunk(v, number)->offset),
			le32_get(chunk(v, number)->stored_bytes)));
	fix_table(v, ROUSE_SECTION_CHUNK_DIR);
}

/* Its checksum is right, what it decompresses to is too short. */
static void chunk_shorter(struct victim *v)
{
	chunk(v, 3)->stored_bytes = le32_make(le32_get(chunk(v, 3)->stored_bytes) - 8);
	fix_chunk(v, 3);
}

static void chunk_nonsense(struct victim *v)
{
	memset(v->bytes + le64_get(chunk(v, 3)->offset), 0xff, le32_get(chunk(v, 3)->stored_bytes));
	fix_chunk(v, 3);
}

static void chunk_length(struct victim *v)
{
	chunk(v, 3)->stored_bytes = le32_make(5 * GOLDEN_PAGE);
	fix_table(v, ROUSE_SECTION_CHUNK_DIR);
}

static void chunk_too_many_pages(struct victim *v)
{
	chunk(v, 3)->pages = le16_make(5);
	fix_table(v, ROUSE_SECTION_CHUNK_DIR);
}

#define BAD(name, words)           \
	{                          \
#name, words, name \
	}
static const struct {
	const char *name, *words;
	spoil_fn *spoil;
} bad[] = {
	BAD(empty, "not a Rouse image"),
	BAD(truncated_superblock, "truncated: it ends in its superblock"),
	BAD(truncated, "the image is truncated"),
	BAD(bad_magic, "not a Rouse image"),
	BAD(newer_version, "format version 2"),
	BAD(version_zero, "format version 0"),
	BAD(unknown_incompat, "needs features"),
	BAD(superblock_checksum, "the superblock is damaged"),
	BAD(header_bytes, "makes no sense: its size"),
	BAD(page_bytes, "pages of 16384 bytes"),
	BAD(page_count, "the number of pages"),
	BAD(chunk_count, "the number of chunks"),
	BAD(near_chunks, "the chunks that come first"),
	BAD(chunk_pages, "the pages in a chunk"),
	BAD(block_count, "the number of RAM blocks"),
	BAD(section_count, "the number of sections"),
	BAD(zero_pages, "the zero or equal pages"),
	BAD(wrong_zero_pages, "zero pages, its superblock says"),
	BAD(section_outside, "section DEVICES lies outside"),
	BAD(section_wraps, "section DEVICES lies outside"),
	BAD(section_length, "section PAGE_DIR has an impossible length"),
	BAD(section_too_long, "section DEVICES has an impossible length"),
	BAD(section_checksum, "section METADATA at offset"),
	BAD(block_name, "RAM block 0 has an impossible name"),
	BAD(block_name_twice, "two RAM blocks have the name pc.ram"),
	BAD(block_sum, "do not add up"),
	BAD(block_size, "RAM block pc.ram has an impossible size"),
	BAD(wset_page_twice, "page 30 stands in the working set twice"),
	BAD(wset_page_outside, "a page that the VM does not have"),
	BAD(wset_locator, "leads to no stored page"),
	BAD(wset_counts, "another length than its counts say"),
	BAD(wset_codec, "unknown codec: 77"),
	BAD(wset_elsewhere, "lies elsewhere in the page table"),
	BAD(wset_other_chunk, "is another one in the chunk table"),
	BAD(page_dir_outside, "entry for page table 0 makes no sense"),
	BAD(page_dir_entries, "entry for page table 0 makes no sense"),
	BAD(chunk_dir_absent, "entry for chunk table 0 makes no sense"),
	BAD(page_table_checksum, "page table 0: wrong checksum"),
	BAD(chunk_table_checksum, "chunk table 0: wrong checksum"),
	BAD(locator_chunk, "page table 0: wrong checksum or content"),
	BAD(locator_without_chunk, "page table 0: wrong checksum or content"),
	BAD(locator_slot, "page 5 leads to no stored page"),
	BAD(chunk_outside, "chunk table 0: wrong checksum or content"),
	BAD(chunk_checksum, "chunk 3: wrong checksum or content"),
	BAD(chunk_shorter, "chunk 3: wrong checksum or content"),
	BAD(chunk_nonsense, "chunk 3: wrong checksum or content"),
	BAD(chunk_length, "chunk table 0: wrong checksum or content"),
	BAD(chunk_too_many_pages, "chunk table 0: wrong checksum or content"),
};

static void make_bad(const char *directory, unsigned int index)
{
	struct victim victim = {0};
	char path[PATH_MAX], words[256], *bytes;

	(void)snprintf(path, sizeof(path), "%s/good/lz4_wset.rouse", directory);
	if (rouse_io_read_file(path, MAX_FILE, &bytes, &victim.size) < 0)
		die(path);
	victim.bytes = (unsigned char *)bytes;
	victim.superblock = (struct rouse_disk_superblock *)(void *)bytes;
	bad[index].spoil(&victim);
	if (!victim.keep_superblock)
		victim.superblock->checksum = le64_make(XXH3_64bits(
			victim.bytes, offsetof(struct rouse_disk_superblock, checksum)));
	(void)snprintf(path, sizeof(path), "%s/bad/%s.rouse", directory, bad[index].name);
	write_file(path, victim.bytes, victim.size);
	(void)snprintf(path, sizeof(path), "%s/bad/%s.error", directory, bad[index].name);
	(void)snprintf(words, sizeof(words), "%s\n", bad[index].words);
	write_file(path, words, strlen(words));
	free(bytes);
}

int main(int argc, char **argv)
{
	char path[PATH_MAX];

	if (argc != 2) {
		fprintf(stderr, "usage: make-golden DIRECTORY\n");
		return 2;
	}
	for (unsigned int i = 0; i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", argv[1], i == 0 ? "good" : "bad");
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			die(path);
	}
	make_good(argv[1], "none", ROUSE_CODEC_NONE, false);
	make_good(argv[1], "none_wset", ROUSE_CODEC_NONE, true);
	make_good(argv[1], "lz4", ROUSE_CODEC_LZ4, false);
	make_good(argv[1], "lz4_wset", ROUSE_CODEC_LZ4, true);
	make_good(argv[1], "zstd", ROUSE_CODEC_ZSTD, false);
	make_good(argv[1], "zstd_wset", ROUSE_CODEC_ZSTD, true);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		make_bad(argv[1], i);
	return 0;
}
