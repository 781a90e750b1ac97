/* SPDX-License-Identifier: MIT */
#include "fake_idle.h"

#include <errno.h>
#include <string.h>

#define FLAG_LRU (UINT64_C(1) << 5)
#define PRESENT (UINT64_C(1) << 63)
#define SWAPPED (UINT64_C(1) << 62)
#define HUGE 512u

static struct fake_frame *head_of(struct fake_idle *fake, uint32_t page)
{
	return &fake->frames[fake->frames[fake->map[page]].head];
}

static uint32_t take_frames(struct fake_idle *fake, uint32_t count)
{
	const uint32_t first = (fake->next_frame + count - 1) / count * count;

	fake->next_frame = first + count;
	for (uint32_t i = 0; i < count; i++)
		fake->frames[first + i] = (struct fake_frame){.head = first,
			.count = i == 0 ? count : 0,
			.accessed = true,
			.listed = true};
	return first;
}

void fake_idle_init(struct fake_idle *fake)
{
	memset(fake, 0, sizeof(*fake));
	fake->address = FAKE_ADDRESS;
	fake->end = FAKE_FRAMES;
	fake->serve = 4096;
	fake->next_frame = 64;
	fake->frames[FAKE_ZERO_FRAME] = (struct fake_frame){.head = FAKE_ZERO_FRAME, .count = 1};
}

void fake_idle_fill(struct fake_idle *fake, uint32_t page)
{
	fake->map[page] = take_frames(fake, 1);
	fake->swapped[page] = false;
}

void fake_idle_fill_huge(struct fake_idle *fake, uint32_t page)
{
	const uint32_t first = take_frames(fake, HUGE);

	for (uint32_t i = 0; i < HUGE; i++)
		fake->map[page + i] = first + i;
}

void fake_idle_touch(struct fake_idle *fake, uint32_t page)
{
	if (fake->map[page] == 0)
		fake_idle_fill(fake, page);
	fake->frames[fake->map[page]].accessed = true;
}

void fake_idle_touch_by_kernel(struct fake_idle *fake, uint32_t page)
{
	head_of(fake, page)->idle = false;
}

void fake_idle_move(struct fake_idle *fake, uint32_t page)
{
	const struct fake_frame old = fake->frames[fake->map[page]];

	fake_idle_fill(fake, page);
	fake->frames[fake->map[page]].idle = old.idle;
	fake->frames[fake->map[page]].accessed = old.accessed;
}

void fake_idle_swap_out(struct fake_idle *fake, uint32_t page)
{
	fake->map[page] = 0;
	fake->swapped[page] = true;
}

void fake_idle_split(struct fake_idle *fake, uint32_t page, uint32_t count)
{
	struct fake_frame *head = head_of(fake, page);
	const struct fake_frame old = *head;

	for (uint32_t i = 0; i < old.count; i++) {
		struct fake_frame *frame = head + i;

		frame->head = old.head + i / count * count;
		frame->count = i % count == 0 ? count : 0;
		frame->idle = i % count == 0 && old.idle;
	}
}

/* ---- The files ------------------------------------------------------------------------------- */

/* As page_idle_get_folio() does: heads on an LRU list only. */
static struct fake_frame *idle_frame(struct fake_idle *fake, uint64_t pfn)
{
	struct fake_frame *frame = pfn < FAKE_FRAMES ? &fake->frames[pfn] : NULL;

	return frame != NULL && pfn < fake->end && frame->count > 0 && frame->listed ? frame : NULL;
}

/* As page_idle_clear_pte_refs() does. */
static void clear_accesses(struct fake_frame *head)
{
	bool accessed = false;

	for (uint32_t i = 0; i < head->count && !head->locked; i++) {
		accessed = accessed || head[i].accessed;
		head[i].accessed = false;
	}
	if (accessed)
		head->idle = false;
}

static uint64_t bitmap_word(struct fake_idle *fake, uint64_t index)
{
	uint64_t word = 0;

	for (uint64_t bit = 0; bit < 64; bit++) {
		struct fake_frame *frame = idle_frame(fake, index * 64 + bit);

		if (frame == NULL || !frame->idle)
			continue;
		clear_accesses(frame);
		word |= (uint64_t)frame->idle << bit;
	}
	return word;
}

static uint64_t pagemap_word(const struct fake_idle *fake, uint64_t index)
{
	const uint64_t page = index - fake->address / 4096;

	if (page >= FAKE_PAGES)
		return 0;
	if (fake->map[page] != 0)
		return PRESENT | (fake->hides ? 0 : fake->map[page]);
	return fake->swapped[page] ? SWAPPED | 0x4321 : 0;
}

static uint64_t flags_word(const struct fake_idle *fake, uint64_t pfn)
{
	const struct fake_frame *frame = &fake->frames[pfn];
	const struct fake_frame *head = &fake->frames[frame->head];
	uint64_t flags = pfn == FAKE_ZERO_FRAME ? SCAN_IDLE_FLAG_ZERO : 0;

	if (head->count > 1)
		flags |= frame == head ? SCAN_IDLE_FLAG_HEAD : SCAN_IDLE_FLAG_TAIL;
	return flags | (head->idle ? SCAN_IDLE_FLAG_IDLE : 0) | (head->listed ? FLAG_LRU : 0);
}

static size_t check_call(struct fake_idle *fake, size_t bytes, uint64_t offset)
{
	if (bytes % 8 != 0 || offset % 8 != 0)
		fake->unaligned++;
	return (bytes < fake->serve ? bytes : fake->serve) / 8;
}

static ssize_t read_words(
	void *user, enum scan_idle_file file, void *buffer, size_t bytes, uint64_t offset)
{
	struct fake_idle *fake = user;
	const size_t count = check_call(fake, bytes, offset);
	uint64_t end = file == SCAN_IDLE_BITMAP ? fake->end / 64 : fake->end;
	uint64_t *words = buffer;
	size_t done = 0;

	if (file == SCAN_IDLE_PAGEMAP)
		end = fake->is_over ? 0 : UINT64_MAX;
	if (fake->meanwhile != NULL)
		fake->meanwhile(fake, file);
	fake->reads[file]++;
	if (fake->fails != 0 && fake->fails_of == file)
		return fake->fails;
	for (uint64_t at = offset / 8; done < count && at < end; at++) {
		words[done++] = file == SCAN_IDLE_BITMAP    ? bitmap_word(fake, at)
				: file == SCAN_IDLE_PAGEMAP ? pagemap_word(fake, at)
							    : flags_word(fake, at);
	}
	return (ssize_t)(done * 8);
}

static ssize_t write_words(void *user, const void *buffer, size_t bytes, uint64_t offset)
{
	struct fake_idle *fake = user;
	const size_t count = check_call(fake, bytes, offset);
	const uint64_t *words = buffer;

	fake->writes++;
	if (offset * 8 >= fake->end)
		return -ENXIO;
	for (uint64_t bit = 0; bit < count * 64; bit++) {
		struct fake_frame *frame = idle_frame(fake, offset * 8 + bit);

		if ((words[bit / 64] >> bit % 64 & 1) == 0 || frame == NULL)
			continue;
		clear_accesses(frame);
		frame->idle = true;
	}
	return (ssize_t)(count * 8);
}

struct scan_idle_kernel fake_idle_kernel(struct fake_idle *fake)
{
	return (struct scan_idle_kernel){.user = fake, .read = read_words, .write = write_words};
}
