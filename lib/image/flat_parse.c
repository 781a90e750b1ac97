/* SPDX-License-Identifier: MIT */
#include "image/flat.h"

#include "base/error.h"

#include <xxhash.h>

#define PAGE ROUSE_IMAGE_PAGE_BYTES

void rouse_flat_lay_out(struct rouse_flat *flat)
{
	const uint64_t table_bytes = flat->page_count * sizeof(le64_t);

	flat->table_offset = flat->page_count * PAGE;
	flat->file_bytes = flat->table_offset + (table_bytes + PAGE - 1) / PAGE * PAGE +
			   ROUSE_FLAT_FOOTER_BYTES;
}

static uint64_t checksum_of(const struct rouse_disk_flat *disk)
{
	return XXH3_64bits(disk, offsetof(struct rouse_disk_flat, checksum));
}

void rouse_flat_encode(const struct rouse_flat *flat, struct rouse_disk_flat *disk)
{
	*disk = (struct rouse_disk_flat){
		.version = le32_make(ROUSE_FLAT_VERSION),
		.footer_bytes = le32_make(ROUSE_FLAT_FOOTER_BYTES),
		.checkpoint = le64_make(flat->checkpoint),
		.blocks_checksum = le64_make(flat->blocks_checksum),
		.page_count = le64_make(flat->page_count),
		.main_first = le64_make(flat->main_first),
		.main_pages = le64_make(flat->main_pages),
		.zero_pages = le64_make(flat->zero_pages),
		.table_offset = le64_make(flat->table_offset),
		.table_checksum = le64_make(flat->table_checksum),
		.file_bytes = le64_make(flat->file_bytes),
		.written_s = le64_make(flat->written_s),
	};
	memcpy(disk->magic, ROUSE_FLAT_MAGIC, sizeof(disk->magic));
	memcpy(disk->id, flat->id, sizeof(disk->id));
	disk->checksum = le64_make(checksum_of(disk));
}

/* The numbers of a footer whose checksum is right: they need not make sense for that. */
static bool makes_sense(const struct rouse_flat *flat, uint64_t file_bytes)
{
	struct rouse_flat laid_out = *flat;

	if (flat->page_count == 0 || flat->page_count > ROUSE_IMAGE_MAX_PAGES)
		return false;
	rouse_flat_lay_out(&laid_out);
	return flat->main_pages > 0 && flat->main_pages <= flat->page_count &&
	       flat->main_first <= flat->page_count - flat->main_pages &&
	       flat->zero_pages <= flat->page_count &&
	       flat->table_offset == laid_out.table_offset &&
	       flat->file_bytes == laid_out.file_bytes && flat->file_bytes == file_bytes;
}

int rouse_flat_parse(const void *bytes, size_t size, uint64_t file_bytes, struct rouse_flat *flat,
	struct rouse_error *error)
{
	struct rouse_disk_flat disk;

	if (size != sizeof(disk))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "no flat file");
	memcpy(&disk, bytes, sizeof(disk));
	if (memcmp(disk.magic, ROUSE_FLAT_MAGIC, sizeof(disk.magic)) != 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"no flat file, or a truncated one: rouse convert --flat makes one");
	if (le32_get(disk.version) > ROUSE_FLAT_VERSION)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the flat file has format %u: it needs a newer Rouse",
			le32_get(disk.version));
	if (le64_get(disk.checksum) != checksum_of(&disk) || le32_get(disk.version) == 0 ||
		le32_get(disk.footer_bytes) != ROUSE_FLAT_FOOTER_BYTES)
		return rouse_error_set(
			error, ROUSE_ERROR_DAMAGED, -EUCLEAN, "the flat file's footer is damaged");
	if ((le64_get(disk.incompat) & ~ROUSE_FLAT_INCOMPAT_KNOWN) != 0)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EPROTONOSUPPORT,
			"the flat file uses features that need a newer Rouse");
	*flat = (struct rouse_flat){
		.checkpoint = le64_get(disk.checkpoint),
		.blocks_checksum = le64_get(disk.blocks_checksum),
		.page_count = le64_get(disk.page_count),
		.main_first = le64_get(disk.main_first),
		.main_pages = le64_get(disk.main_pages),
		.zero_pages = le64_get(disk.zero_pages),
		.table_offset = le64_get(disk.table_offset),
		.table_checksum = le64_get(disk.table_checksum),
		.file_bytes = le64_get(disk.file_bytes),
		.written_s = le64_get(disk.written_s),
	};
	memcpy(flat->id, disk.id, sizeof(flat->id));
	if (!makes_sense(flat, file_bytes))
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"the flat file has another length than its footer says, or is damaged");
	return 0;
}

uint64_t rouse_flat_checksum(const void *page)
{
	const uint64_t sum = XXH3_64bits(page, PAGE);

	/* 0 is for zero pages: another number must stand for a page that happens to have it. */
	return sum != ROUSE_FLAT_ZERO ? sum : 1;
}
