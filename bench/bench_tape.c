/* SPDX-License-Identifier: MIT */
#include "bench_tape.h"

#include "base/endian.h"
#include "base/error.h"
#include "engine/engine.h"
#include "vmm/qemu_writer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAGE ((size_t)QEMU_PAGE_BYTES)

/* The sink that takes notes. */
struct note_sink {
	struct rouse_sink sink;
	struct bench_tape *tape;
	struct rouse_bitmap placed;
	bool before_start;
	int interrupted; /* an eventfd: wait_fault has nothing else to wait for */
};

static struct note_sink *note_of(struct rouse_sink *sink)
{
	return (struct note_sink *)sink;
}

static int make_room(struct bench_tape *tape, size_t count)
{
	if (tape->count + count > tape->room) {
		uint64_t room = 2 * tape->room + 65536;
		uint64_t *pages = realloc(tape->pages, room * sizeof(*pages));
		uint64_t *where = realloc(tape->where, room * sizeof(*where));

		if (pages != NULL)
			tape->pages = pages;
		if (where != NULL)
			tape->where = where;
		if (pages == NULL || where == NULL)
			return -ENOMEM;
		tape->room = room;
	}
	if (tape->stored + count > tape->data_room) {
		uint64_t room = tape->data_room + tape->data_room / 2 + 65536;
		uint8_t *data = realloc(tape->data, room * PAGE);

		if (data == NULL)
			return -ENOMEM;
		tape->data = data;
		tape->data_room = room;
	}
	return 0;
}

static int note_pages(struct note_sink *note, const struct rouse_sink_page *pages, size_t count)
{
	struct bench_tape *tape = note->tape;

	if (make_room(tape, count) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (rouse_bitmap_test_and_set(&note->placed, pages[i].page))
			continue;
		tape->pages[tape->count] = pages[i].page;
		tape->where[tape->count++] = pages[i].data != NULL ? tape->stored : UINT64_MAX;
		if (pages[i].data != NULL)
			memcpy(tape->data + tape->stored++ * PAGE, pages[i].data, PAGE);
	}
	return 0;
}

static int note_prefetch(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count)
{
	return note_pages(note_of(sink), pages, count);
}

static int note_start(struct rouse_sink *sink, uint64_t *started_ns, struct rouse_error *error)
{
	(void)error;
	*started_ns = 1;
	return note_of(sink)->before_start ? -ECANCELED : 0;
}

static int note_wait_fault(struct rouse_sink *sink, uint64_t *page)
{
	uint64_t value;

	(void)page;
	(void)!read(note_of(sink)->interrupted, &value, sizeof(value));
	return -ECANCELED;
}

static int note_place(struct rouse_sink *sink, const struct rouse_sink_page *pages, size_t count,
	enum rouse_sink_priority priority, size_t *placed)
{
	(void)priority;
	*placed = count;
	return note_pages(note_of(sink), pages, count);
}

static bool note_is_placed(struct rouse_sink *sink, uint64_t page)
{
	return rouse_bitmap_test(&note_of(sink)->placed, page);
}

static int note_nothing(struct rouse_sink *sink, struct rouse_error *error)
{
	(void)sink;
	(void)error;
	return 0;
}

static void note_interrupt(struct rouse_sink *sink)
{
	const uint64_t one = 1;

	(void)!write(note_of(sink)->interrupted, &one, sizeof(one));
}

static const struct rouse_sink_ops note_ops = {
	.prefetch = note_prefetch,
	.start = note_start,
	.wait_fault = note_wait_fault,
	.place = note_place,
	.is_placed = note_is_placed,
	.finish = note_nothing,
	.stop_guest = note_nothing,
	.interrupt = note_interrupt,
};

int bench_tape_record(struct bench_tape *tape, const struct bench_vm *vm, enum rouse_policy policy,
	bool before_start, struct rouse_error *error)
{
	const struct rouse_engine_config config = {
		.reader = vm->reader,
		.source = vm->source,
		.policy = policy,
		.background = ROUSE_BACKGROUND_MAX,
	};
	struct note_sink note = {.sink.ops = &note_ops, .tape = tape, .before_start = before_start};
	struct rouse_engine *engine = NULL;
	int code;

	*tape = (struct bench_tape){0};
	code = rouse_bitmap_init(&note.placed, rouse_reader_page_count(vm->reader));
	if (code < 0)
		return rouse_error_errno(error, code, "cannot record");
	note.interrupted = eventfd(0, EFD_CLOEXEC);
	code = rouse_engine_new(&config, &engine, error);
	if (code == 0)
		code = rouse_engine_run(engine, &note.sink, error);
	if (before_start && code == -ECANCELED)
		code = 0;
	rouse_engine_free(engine);
	(void)close(note.interrupted);
	rouse_bitmap_finish(&note.placed);
	return code;
}

void bench_tape_finish(struct bench_tape *tape)
{
	free(tape->pages);
	free(tape->where);
	free(tape->data);
}

static const void *content(const struct bench_tape *tape, uint64_t i)
{
	return tape->where[i] != UINT64_MAX ? tape->data + tape->where[i] * PAGE : NULL;
}

bool bench_tape_find(const struct bench_tape *tape, uint64_t page, const void **data)
{
	for (uint64_t i = 0; i < tape->count; i++) {
		if (tape->pages[i] == page) {
			*data = content(tape, i);
			return true;
		}
	}
	return false;
}

/* One page's record; bytes used. */
static size_t put_page(
	uint8_t *to, const struct qemu_block *block, bool named, uint64_t page, const void *data)
{
	const uint64_t offset = (page - block->first_page) * PAGE;
	size_t used = 8;

	be64_store(to, offset | (data != NULL ? QEMU_RAM_PAGE : QEMU_RAM_ZERO) |
			       (named ? 0 : QEMU_RAM_CONTINUE));
	if (named) {
		size_t length = strlen(block->name);

		to[used++] = (uint8_t)length;
		memcpy(to + used, block->name, length);
		used += length;
	}
	if (data == NULL) {
		to[used++] = 0;
		return used;
	}
	memcpy(to + used, data, PAGE);
	return used + PAGE;
}

int bench_tape_encode(const struct bench_tape *tape, const struct bench_vm *vm,
	const struct rouse_bitmap *skip, uint8_t **bytes, size_t *size, uint64_t *stored)
{
	uint32_t last = UINT32_MAX;

	/* A name with each page would be room enough: blocks change seldom. */
	*bytes = malloc(tape->count * 16 + tape->stored * PAGE + ((size_t)1 << 20));
	*size = 0;
	*stored = 0;
	if (*bytes == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < tape->count; i++) {
		uint32_t block;

		if (skip != NULL && rouse_bitmap_test(skip, tape->pages[i]))
			continue;
		block = qemu_block_of(vm->blocks, vm->block_count, tape->pages[i]);
		*size += put_page(*bytes + *size, &vm->blocks[block], block != last, tape->pages[i],
			content(tape, i));
		*stored += content(tape, i) != NULL;
		last = block;
	}
	return 0;
}
