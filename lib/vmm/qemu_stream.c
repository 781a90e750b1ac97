/* SPDX-License-Identifier: MIT */
/*
 * The decoder of QEMU's migration stream.
 *
 *	fed bytes --> a record that is whole ------------------> parsed where it lies
 *	         \--> the pieces of a record that straddles two feeds --> staging --> parsed there
 *	         \--> everything from the first device section on -----> devices
 *
 * A record is what can be understood at once: a section header, a page with its header, one entry
 * of the block list. record_parse() says how many bytes it used, or 0 that it needs more (then
 * ->need says how many there must be at least). No record is longer than STAGING_BYTES, so a page
 *is copied only if it lies across the border of two feeds.
 */
#include "vmm/qemu_stream.h"

#include "base/endian.h"
#include "base/error.h"

#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* The longest record: a page with the longest name. */
#define STAGING_BYTES (8 + 1 + 255 + QEMU_PAGE_BYTES)
#define CONFIG_MAX 4096u
#define MAX_PAGES (UINT64_C(1) << 32) /* 16 TiB: as much as an image can hold */
/* QEMU numbers sections from 0; many more than it has devices. */
#define SECTION_ID_MAX (1u << 20)
#define FOOTER_BYTES 5u

enum state {
	STATE_HEADER,
	STATE_CONFIG,     /* a configuration section may come */
	STATE_SUBSECTION, /* of the configuration */
	STATE_SECTION,
	STATE_WORD,   /* in RAM's section: the next word */
	STATE_BLOCKS, /* in RAM's section: the list of blocks */
	STATE_FOOTER, /* behind RAM's section */
	STATE_DEVICES,
};

struct qemu_stream {
	const struct qemu_stream_ops *ops;
	void *user;
	enum state state;
	int failed; /* the code that ended it; sticky */
	bool have_list;
	bool footers;    /* one was there: so they all must be */
	uint8_t section; /* type of the RAM section that we are in */
	uint32_t ram_id;
	uint64_t list_left; /* of MEM_SIZE's sum */
	uint64_t pages;     /* of the blocks so far */
	uint32_t block_count;
	const struct qemu_block *block; /* of the last page; NULL: none yet */
	size_t need, staged;
	size_t config_size;
	char machine[256];
	uint8_t *devices;
	size_t devices_used, devices_room, devices_size;
	struct qemu_block blocks[QEMU_STREAM_MAX_BLOCKS];
	uint8_t config[CONFIG_MAX];
	uint8_t staging[STAGING_BYTES];
};

int qemu_stream_new(const struct qemu_stream_ops *ops, void *user, struct qemu_stream **stream)
{
	struct qemu_stream *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return -ENOMEM;
	s->ops = ops;
	s->user = user;
	*stream = s;
	return 0;
}

void qemu_stream_free(struct qemu_stream *stream)
{
	if (stream == NULL)
		return;
	free(stream->devices);
	free(stream);
}

static int damaged(struct rouse_error *error, const char *what)
{
	return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
		"QEMU's migration stream is damaged: %s", what);
}

static int unsupported(struct rouse_error *error, const char *what)
{
	return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
		"QEMU's migration stream has %s, which Rouse does not handle", what);
}

/* More bytes are needed, @need at least: what record parsers return then. */
static ssize_t need_more(struct qemu_stream *s, size_t need)
{
	s->need = need;
	return 0;
}

static ssize_t header_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	if (n < 8)
		return need_more(s, 8);
	if (memcmp(p, "LibvirtQ", 8) == 0)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"this is a save file of libvirt, not a plain QEMU migration stream");
	if (be32_load(p) != QEMU_VM_FILE_MAGIC)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, -EUCLEAN,
			"this is not a QEMU migration stream");
	if (be32_load(p + 4) != QEMU_VM_FILE_VERSION)
		return unsupported(error, "a version other than 3");
	s->state = STATE_CONFIG;
	return 8;
}

static int config_keep(struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	if (n > CONFIG_MAX - s->config_size)
		return damaged(error, "the configuration section is too long");
	memcpy(s->config + s->config_size, p, n);
	s->config_size += n;
	return 0;
}

static ssize_t config_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	uint32_t length;

	if (p[0] != QEMU_VM_CONFIGURATION) {
		s->state = STATE_SECTION;
		return need_more(s, 1); /* nothing used: parsed again as a section */
	}
	if (n < 5)
		return need_more(s, 5);
	length = be32_load(p + 1);
	if (length >= sizeof(s->machine))
		return damaged(error, "the machine's name is too long");
	if (n < 5 + length)
		return need_more(s, 5 + length);
	if (memchr(p + 5, '\0', length) != NULL)
		return damaged(error, "the machine's name has a NUL");
	memcpy(s->machine, p + 5, length);
	if (config_keep(s, p, 5 + length, error) < 0)
		return -EUCLEAN;
	s->state = STATE_SUBSECTION;
	return 5 + (ssize_t)length;
}

static bool name_is(const uint8_t *name, size_t length, const char *text)
{
	return length == strlen(text) && memcmp(name, text, length) == 0;
}

/* 05, u8 length, name, u32 version, body: what was switched on that the stream depends on. */
static ssize_t subsection_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	size_t head, body;

	if (p[0] != QEMU_VM_SUBSECTION) {
		s->state = STATE_SECTION;
		return need_more(s, 1);
	}
	if (n < 2)
		return need_more(s, 2);
	head = 2 + (size_t)p[1] + 4;
	if (n < head)
		return need_more(s, head);
	if (name_is(p + 2, p[1], "configuration/capabilities"))
		return unsupported(error,
			"a capability on that changes its form (x-ignore-shared or mapped-ram)");
	if (name_is(p + 2, p[1], "configuration/target-page-bits"))
		body = 4;
	else if (name_is(p + 2, p[1], "configuration/uuid"))
		body = 16;
	else
		return unsupported(error, "an unknown part in its configuration section");
	if (n < head + body)
		return need_more(s, head + body);
	if (body == 4 && be32_load(p + head) != 12)
		return unsupported(error, "pages of another size than 4096 bytes");
	if (config_keep(s, p, head + body, error) < 0)
		return -EUCLEAN;
	return (ssize_t)(head + body);
}

/* 01 START or 04 FULL: type, u32 id, u8 length, idstr, u32 instance, u32 version. */
static ssize_t section_start_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	size_t length;

	if (n < 6)
		return need_more(s, 6);
	length = p[5];
	if (n < 6 + length + 8)
		return need_more(s, 6 + length + 8);
	if (p[0] == QEMU_VM_SECTION_FULL || !name_is(p + 6, length, "ram"))
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"the device '%.*s' saves itself before or beside the memory, which Rouse "
			"does not handle: remove it from the VM first",
			(int)length, (const char *)(p + 6));
	if (s->have_list)
		return damaged(error, "the memory begins twice");
	if (be32_load(p + 6 + length + 4) != QEMU_RAM_VERSION)
		return unsupported(error, "memory in a version other than 4");
	s->ram_id = be32_load(p + 1);
	s->section = p[0];
	s->state = STATE_WORD;
	return 6 + (ssize_t)length + 8;
}

static ssize_t section_part_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	if (n < 5)
		return need_more(s, 5);
	if (!s->have_list || be32_load(p + 1) != s->ram_id)
		return damaged(error, "a section goes on that never began");
	s->section = p[0];
	s->state = STATE_WORD;
	return 5;
}

/* Commands between sections: those that only speak of the connection mean nothing in a file. */
static ssize_t command_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	uint16_t command, length;

	if (n < 5)
		return need_more(s, 5);
	command = be16_load(p + 1);
	length = be16_load(p + 3);
	switch (command) {
	case QEMU_CMD_OPEN_RETURN_PATH:
	case QEMU_CMD_PING:
	case QEMU_CMD_SWITCHOVER_START:
		break;
	case QEMU_CMD_POSTCOPY_ADVISE:
		return unsupported(error, "the capability postcopy-ram on");
	default:
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"QEMU's migration stream has a command %u, which Rouse does not handle",
			command);
	}
	if (length > 16)
		return damaged(error, "a command is too long");
	return n < 5 + (size_t)length ? need_more(s, 5 + length) : 5 + (ssize_t)length;
}

static ssize_t section_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	switch (p[0]) {
	case QEMU_VM_SECTION_FULL:
		if (!s->have_list)
			return section_start_parse(s, p, n, error);
		s->state = STATE_DEVICES;
		return need_more(s, 1); /* its type byte belongs to the device state */
	case QEMU_VM_SECTION_START:
		return section_start_parse(s, p, n, error);
	case QEMU_VM_SECTION_PART:
	case QEMU_VM_SECTION_END:
		return section_part_parse(s, p, n, error);
	case QEMU_VM_COMMAND:
		return command_parse(s, p, n, error);
	case QEMU_VM_EOF:
		return damaged(error, "it has no device state");
	default:
		return damaged(error, "a section has an unknown type");
	}
}

/*
 * At a byte of another type where a footer must be. A QEMU reads only streams with footers or only
 * those without, as its machine is; we write them with. An image of a stream without could not be
 * restored: it is refused at its first section, while the VM is there.
 */
static int footer_missing(const struct qemu_stream *s, uint8_t type, struct rouse_error *error)
{
	const bool goes_on = (type >= QEMU_VM_SECTION_START && type <= QEMU_VM_SECTION_FULL) ||
			     type == QEMU_VM_COMMAND;

	if (s->footers || !goes_on)
		return damaged(error, "a section has no footer");
	return unsupported(error,
		"no section footers (machine type 2.3 or older, or send-section-footer=off)");
}

static ssize_t footer_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	if (p[0] != QEMU_VM_SECTION_FOOTER)
		return footer_missing(s, p[0], error);
	if (n < FOOTER_BYTES)
		return need_more(s, FOOTER_BYTES);
	if (be32_load(p + 1) != s->ram_id)
		return damaged(error, "a section's footer is of another section");
	s->footers = true;
	s->state = STATE_SECTION;
	return FOOTER_BYTES;
}

static const struct qemu_block *block_find(
	const struct qemu_stream *s, const uint8_t *name, size_t length)
{
	for (uint32_t i = 0; i < s->block_count; i++) {
		if (name_is(name, length, s->blocks[i].name))
			return &s->blocks[i];
	}
	return NULL;
}

/* One entry of the list: u8 length, name, u64 used length. */
static ssize_t block_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	size_t length = p[0];
	struct qemu_block *block;
	uint64_t used;

	if (n < 1 + length + 8)
		return need_more(s, 1 + length + 8);
	used = be64_load(p + 1 + length);
	if (length == 0 || memchr(p + 1, '\0', length) != NULL)
		return damaged(error, "a RAM block has no proper name");
	if (used > s->list_left || used % QEMU_PAGE_BYTES != 0)
		return damaged(error, "the sizes of the RAM blocks do not add up");
	if (s->block_count == QEMU_STREAM_MAX_BLOCKS || block_find(s, p + 1, length) != NULL)
		return damaged(error, "there are too many RAM blocks, or one twice");
	block = &s->blocks[s->block_count++];
	memcpy(block->name, p + 1, length);
	block->used_bytes = used;
	block->first_page = s->pages;
	s->pages += used / QEMU_PAGE_BYTES;
	s->list_left -= used;
	if (s->list_left == 0) {
		int code = s->ops->blocks(s->user, s->blocks, s->block_count);

		if (code < 0)
			return rouse_error_errno(error, code, "cannot take in the RAM blocks");
		s->have_list = true;
		s->state = STATE_WORD;
	}
	return 1 + (ssize_t)length + 8;
}

/* Not a page: the list of blocks, the end of the section, or what we cannot read. */
static ssize_t word_parse_other(struct qemu_stream *s, uint64_t word, struct rouse_error *error)
{
	uint64_t flags = word & ~QEMU_PAGE_MASK;

	if (flags == QEMU_RAM_EOS) {
		if (!s->have_list)
			return damaged(error, "the list of RAM blocks is missing");
		s->state = STATE_FOOTER;
		return 8;
	}
	if (flags == QEMU_RAM_MEM_SIZE && s->section == QEMU_VM_SECTION_START && !s->have_list) {
		s->list_left = word & QEMU_PAGE_MASK;
		if (s->list_left == 0 || s->list_left / QEMU_PAGE_BYTES > MAX_PAGES)
			return damaged(error, "the size of the memory makes no sense");
		s->state = STATE_BLOCKS;
		return 8;
	}
	if (flags == QEMU_RAM_MEM_SIZE)
		return damaged(error, "the list of RAM blocks comes twice");
	if (flags & 0x40)
		return unsupported(error, "the capability xbzrle on");
	if (flags & 0x80)
		return unsupported(error, "memory that goes over RDMA");
	if (flags & 0x100)
		return unsupported(error, "the capability compress on");
	if (flags & 0x200)
		return unsupported(error, "the capability multifd on");
	return damaged(error, "a page has unknown flags");
}

/* u64 (address | flags), then the block's name unless it is the last page's, then the content. */
static ssize_t word_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	uint64_t word, kind, offset;
	size_t head = 8, body;
	const void *data;
	int code;

	if (n < 8)
		return need_more(s, 8);
	word = be64_load(p);
	kind = word & ~QEMU_PAGE_MASK & ~(uint64_t)QEMU_RAM_CONTINUE;
	if (kind != QEMU_RAM_PAGE && kind != QEMU_RAM_ZERO)
		return word_parse_other(s, word, error);
	body = kind == QEMU_RAM_PAGE ? QEMU_PAGE_BYTES : 1;
	if (!(word & QEMU_RAM_CONTINUE)) {
		if (n < 9)
			return need_more(s, 9);
		head = 9 + (size_t)p[8];
	}
	if (n < head + body)
		return need_more(s, head + body);
	if (!(word & QEMU_RAM_CONTINUE))
		s->block = block_find(s, p + 9, p[8]);
	if (s->block == NULL || !s->have_list)
		return damaged(error, "a page is of an unknown RAM block");
	offset = word & QEMU_PAGE_MASK;
	if (offset >= s->block->used_bytes)
		return damaged(error, "a page lies beyond the end of its RAM block");
	data = kind == QEMU_RAM_PAGE ? p + head : NULL;
	if (data == NULL && p[head] != 0)
		return unsupported(error, "a page filled with one value");
	code = s->ops->page(s->user, s->block->first_page + offset / QEMU_PAGE_BYTES, data);
	if (code < 0)
		return rouse_error_errno(error, code, "cannot store a page");
	return (ssize_t)(head + body);
}

/* The record at @p, of which @n > 0 bytes are there. Bytes used; 0: ->need must be there. */
static ssize_t record_parse(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	switch (s->state) {
	case STATE_HEADER:
		return header_parse(s, p, n, error);
	case STATE_CONFIG:
		return config_parse(s, p, n, error);
	case STATE_SUBSECTION:
		return subsection_parse(s, p, n, error);
	case STATE_SECTION:
		return section_parse(s, p, n, error);
	case STATE_WORD:
		return word_parse(s, p, n, error);
	case STATE_BLOCKS:
		return block_parse(s, p, n, error);
	case STATE_FOOTER:
		return footer_parse(s, p, n, error);
	case STATE_DEVICES:
		break;
	}
	return need_more(s, 1);
}

static int devices_append(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	if (n > QEMU_STREAM_MAX_DEVICES - s->devices_used)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -EFBIG,
			"the VM's device state is larger than %u MiB",
			QEMU_STREAM_MAX_DEVICES >> 20);
	if (n > s->devices_room - s->devices_used) {
		size_t room = s->devices_room > 0 ? s->devices_room : 65536;
		uint8_t *more;

		while (room < s->devices_used + n)
			room *= 2;
		more = realloc(s->devices, room);
		if (more == NULL)
			return rouse_error_errno(error, -ENOMEM, "cannot keep the device state");
		s->devices = more;
		s->devices_room = room;
	}
	memcpy(s->devices + s->devices_used, p, n);
	s->devices_used += n;
	return 0;
}

/*
 * Parses the record that begins in staging, with bytes of @p added until it is whole. Bytes of @p
 * that were used. What was staged was too little for a record, so one that is parsed now uses all
 * of it and some of @p.
 */
static ssize_t staging_feed(
	struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	size_t taken = 0;

	while (s->staged > 0 && s->state != STATE_DEVICES) {
		enum state before = s->state;
		size_t missing = s->need > s->staged ? s->need - s->staged : 0;
		ssize_t used;

		if (missing > n - taken)
			missing = n - taken;
		memcpy(s->staging + s->staged, p + taken, missing);
		s->staged += missing;
		taken += missing;
		if (s->staged < s->need)
			break;
		used = record_parse(s, s->staging, s->staged, error);
		if (used < 0)
			return used;
		if (used > 0 || s->state != before) {
			memmove(s->staging, s->staging + used, s->staged - (size_t)used);
			s->staged -= (size_t)used;
			s->need = 1;
		}
	}
	return (ssize_t)taken;
}

static int stream_feed(struct qemu_stream *s, const uint8_t *p, size_t n, struct rouse_error *error)
{
	ssize_t used = staging_feed(s, p, n, error);

	if (used < 0)
		return (int)used;
	p += used;
	n -= (size_t)used;
	if (s->staged > 0 && s->state == STATE_DEVICES) {
		int code = devices_append(s, s->staging, s->staged, error);

		if (code < 0)
			return code;
		s->staged = 0;
	}
	while (n > 0 && s->state != STATE_DEVICES) {
		enum state before = s->state;

		used = record_parse(s, p, n, error);
		if (used < 0)
			return (int)used;
		if (used == 0 && s->state == before) {
			memcpy(s->staging, p, n); /* n < need <= STAGING_BYTES */
			s->staged = n;
			return 0;
		}
		p += used;
		n -= (size_t)used;
	}
	return n > 0 ? devices_append(s, p, n, error) : 0;
}

int qemu_stream_feed(
	struct qemu_stream *stream, const void *bytes, size_t size, struct rouse_error *error)
{
	int code;

	if (stream->failed < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, stream->failed,
			"the migration stream has failed before");
	code = stream_feed(stream, bytes, size, error);
	stream->failed = code;
	return code;
}

/*
 * Where EOF is. Behind it VMDESC: 06, u32 length, JSON up to the end; or nothing, if the machine
 * suppresses it. JSON has no NUL, so that the first match from the end is the one.
 */
static bool devices_find_eof(const uint8_t *p, size_t n, size_t *eof)
{
	if (n > 0 && p[n - 1] == QEMU_VM_EOF) {
		*eof = n - 1;
		return true;
	}
	if (n < 8 || p[n - 1] != '}')
		return false;
	for (size_t at = n - 8; at > 0; at--) {
		if (p[at] == QEMU_VM_EOF && p[at + 1] == QEMU_VM_VMDESCRIPTION &&
			p[at + 6] == '{' && be32_load(p + at + 2) == n - at - 6) {
			*eof = at;
			return true;
		}
	}
	return false;
}

int qemu_stream_end(struct qemu_stream *stream, struct rouse_error *error)
{
	const uint8_t *p = stream->devices;
	size_t eof;

	if (stream->failed < 0)
		return rouse_error_set(error, ROUSE_ERROR_DAMAGED, stream->failed,
			"the migration stream has failed before");
	if (stream->state != STATE_DEVICES || !devices_find_eof(p, stream->devices_used, &eof))
		return damaged(error, "it ends too early");
	/* A stream that was cut off at a zero byte must not pass for one without VMDESC. */
	if (eof < FOOTER_BYTES || p[eof - FOOTER_BYTES] != QEMU_VM_SECTION_FOOTER ||
		be32_load(p + eof - 4) > SECTION_ID_MAX)
		return damaged(error, "it ends too early");
	stream->devices_size = eof;
	return 0;
}

const void *qemu_stream_config(const struct qemu_stream *stream, size_t *size)
{
	*size = stream->config_size;
	return stream->config;
}

const char *qemu_stream_machine(const struct qemu_stream *stream)
{
	return stream->machine;
}

const void *qemu_stream_devices(const struct qemu_stream *stream, size_t *size)
{
	*size = stream->devices_size;
	return stream->devices;
}
