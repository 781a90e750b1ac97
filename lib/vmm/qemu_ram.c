/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_ram.h"

#include "base/cleanup.h"
#include "base/error.h"

#include <ctype.h>
#include <string.h>

#define MAX_BLOCKS 1024u
#define MAX_VCPUS 4096u

/* ---- Text ---------------------------------------------------------------------------------- */

/* The next word of a line, blanks before it left out. False: there is none. */
static bool next_word(const char **at, const char *end, const char **word, size_t *length)
{
	while (*at < end && isspace((unsigned char)**at))
		(*at)++;
	*word = *at;
	while (*at < end && !isspace((unsigned char)**at))
		(*at)++;
	*length = (size_t)(*at - *word);
	return *length > 0;
}

static bool parse_hex(const char *word, size_t length, uint64_t *value)
{
	if (length > 2 && word[0] == '0' && word[1] == 'x') {
		word += 2;
		length -= 2;
	}
	if (length == 0 || length > 16)
		return false;
	*value = 0;
	for (size_t i = 0; i < length; i++) {
		const char c = word[i];
		unsigned int digit;

		if (c >= '0' && c <= '9')
			digit = (unsigned int)(c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (unsigned int)(c - 'a') + 10;
		else
			return false;
		*value = *value * 16 + digit;
	}
	return true;
}

static bool copy_name(char name[256], const char *from, size_t length)
{
	if (length == 0 || length > 255)
		return false;
	memcpy(name, from, length);
	name[length] = '\0';
	return true;
}

static bool is_unit(const char *word, size_t length)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strlen(units[i]) == length && memcmp(word, units[i], length) == 0)
			return true;
	}
	return false;
}

/*
 * Name, page size and its unit, offset, used, total, and since QEMU 8: address, ro or rw. The name
 * is empty, and so is block->name, if the second word is a unit.
 */
static bool parse_block(const char *line, const char *end, struct qemu_ram_block *block)
{
	const char *word;
	size_t length;
	uint64_t ignored;

	memset(block, 0, sizeof(*block));
	if (!next_word(&line, end, &word, &length) || !copy_name(block->name, word, length) ||
		!next_word(&line, end, &word, &length))
		return false;
	if (is_unit(word, length))
		block->name[0] = '\0';
	else if (!next_word(&line, end, &word, &length) || !is_unit(word, length))
		return false;
	if (!next_word(&line, end, &word, &length) || !parse_hex(word, length, &ignored) ||
		!next_word(&line, end, &word, &length) ||
		!parse_hex(word, length, &block->used_bytes) ||
		!next_word(&line, end, &word, &length) || !parse_hex(word, length, &ignored))
		return false;
	if (next_word(&line, end, &word, &length))
		return parse_hex(word, length, &block->host);
	return true;
}

int qemu_ram_parse_blocks(const char *text, struct qemu_ram_block **blocks, size_t *count)
{
	cleanup_free struct qemu_ram_block *list = NULL;
	const char *line = strchr(text, '\n'); /* behind the headings */
	size_t used = 0;

	if (line == NULL || strstr(text, "Block Name") == NULL)
		return -EUCLEAN;
	list = calloc(MAX_BLOCKS, sizeof(*list));
	if (list == NULL)
		return -ENOMEM;
	for (line++; *line != '\0';) {
		const char *end = line + strcspn(line, "\n");

		if (used == MAX_BLOCKS || !parse_block(line, end, &list[used]))
			return -EUCLEAN;
		/* QEMU does not migrate a block without a name: no page number counts it. */
		used += list[used].name[0] != '\0';
		line = *end == '\0' ? end : end + 1;
	}
	*blocks = take_ptr(&list);
	*count = used;
	return 0;
}

/* "  0000000000100000-000000000fffffff (prio 0, ram): pc.ram @0000000000100000 KVM" */
bool qemu_ram_parse_range(const char *line, size_t length, struct qemu_ram_range *range)
{
	static const char *const kinds[] = {", ram):", ", rom):", ", romd):", ", nv-ram):"};
	const char *end = line + length, *at = line, *word;
	const char *name = NULL;
	size_t size;

	memset(range, 0, sizeof(*range));
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && name == NULL; i++) {
		name = memmem(line, length, kinds[i], strlen(kinds[i]));
		if (name != NULL)
			name += strlen(kinds[i]);
	}
	if (name == NULL || !next_word(&at, end, &word, &size) || size != 33 || word[16] != '-' ||
		!parse_hex(word, 16, &range->guest))
		return false;
	at = name;
	if (!next_word(&at, end, &word, &size) || !copy_name(range->name, word, size))
		return false;
	if (next_word(&at, end, &word, &size) && word[0] == '@')
		return parse_hex(word + 1, size - 1, &range->offset);
	return true;
}

/* "Host virtual address for 0x0 (pc.ram) is 0x7fcecffff000" */
bool qemu_ram_parse_address(const char *text, uint64_t *address)
{
	static const char before[] = ") is ";
	const char *found = strstr(text, before);

	if (found == NULL)
		return false;
	found += strlen(before);
	return parse_hex(found, strcspn(found, " \r\n"), address) && *address != 0;
}

/* ---- Asking -------------------------------------------------------------------------------- */

/* A command of the human monitor; *text is the caller's. */
static int human(struct qmp *qmp, const char *command, char **text, struct rouse_error *error)
{
	json_t *result = NULL;
	int code = qmp_execute(qmp, "human-monitor-command",
		json_pack("{s:s}", "command-line", command), &result, error);

	if (code < 0)
		return code;
	*text = strdup(json_is_string(result) ? json_string_value(result) : "");
	json_decref(result);
	return *text != NULL ? 0 : rouse_error_errno(error, -ENOMEM, "cannot ask QEMU");
}

/* Whether a region called @region is the block: a device's block has its path in front. */
static bool is_block_of(const struct qemu_ram_block *block, const char *region)
{
	const size_t block_length = strlen(block->name), length = strlen(region);

	if (strcmp(block->name, region) == 0)
		return true;
	return block_length > length && block->name[block_length - length - 1] == '/' &&
	       strcmp(block->name + block_length - length, region) == 0;
}

/* The one block that a region can be; NULL: none, or several. */
static struct qemu_ram_block *find_block(
	struct qemu_ram_block *blocks, size_t count, const char *region)
{
	struct qemu_ram_block *found = NULL;

	for (size_t i = 0; i < count; i++) {
		if (!is_block_of(&blocks[i], region))
			continue;
		if (found != NULL)
			return NULL;
		found = &blocks[i];
	}
	return found;
}

static int ask_address(struct qmp *qmp, const struct qemu_ram_range *range,
	struct qemu_ram_block *block, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	char command[64];
	uint64_t host;
	int code;

	(void)snprintf(
		command, sizeof(command), "gpa2hva 0x%llx", (unsigned long long)range->guest);
	code = human(qmp, command, &text, error);
	if (code == 0 && qemu_ram_parse_address(text, &host) && host > range->offset)
		block->host = host - range->offset;
	return code;
}

static int find_addresses(
	struct qmp *qmp, struct qemu_ram_block *blocks, size_t count, struct rouse_error *error)
{
	cleanup_free char *text = NULL;
	int code = human(qmp, "info mtree -f", &text, error);

	for (const char *line = text; code == 0 && *line != '\0';) {
		const size_t length = strcspn(line, "\n");
		struct qemu_ram_range range;

		if (qemu_ram_parse_range(line, length, &range)) {
			struct qemu_ram_block *block = find_block(blocks, count, range.name);

			if (block != NULL && block->host == 0)
				code = ask_address(qmp, &range, block, error);
		}
		line += length + (line[length] != '\0');
	}
	return code;
}

int qemu_ram_query(
	struct qmp *qmp, struct qemu_ram_block **blocks, size_t *count, struct rouse_error *error)
{
	cleanup_free struct qemu_ram_block *list = NULL;
	json_t *result = NULL;
	const char *text;
	bool complete = true;
	int code = qmp_execute(qmp, "x-query-ramblock", NULL, &result, error);

	if (code < 0)
		return code;
	text = json_string_value(json_object_get(result, "human-readable-text"));
	code = text != NULL ? qemu_ram_parse_blocks(text, &list, count) : -EUCLEAN;
	json_decref(result);
	if (code < 0)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, code,
			"QEMU's list of RAM blocks makes no sense to this Rouse");
	for (size_t i = 0; i < *count; i++)
		complete = complete && list[i].host != 0;
	if (!complete)
		code = find_addresses(qmp, list, *count, error);
	if (code == 0)
		*blocks = take_ptr(&list);
	return code;
}

int qemu_ram_query_vcpus(struct qmp *qmp, uint32_t **tids, size_t *count, struct rouse_error *error)
{
	json_t *result = NULL, *cpu;
	uint32_t *list;
	size_t i, vcpus;
	int code = qmp_execute(qmp, "query-cpus-fast", NULL, &result, error);

	if (code < 0)
		return code;
	vcpus = json_array_size(result);
	if (vcpus > MAX_VCPUS)
		vcpus = MAX_VCPUS;
	list = calloc(vcpus + 1, sizeof(*list));
	if (list == NULL) {
		json_decref(result);
		return rouse_error_errno(error, -ENOMEM, "cannot ask QEMU");
	}
	json_array_foreach(result, i, cpu)
	{
		const json_int_t index = json_integer_value(json_object_get(cpu, "cpu-index"));

		if (index >= 0 && (size_t)index < vcpus)
			list[index] =
				(uint32_t)json_integer_value(json_object_get(cpu, "thread-id"));
	}
	json_decref(result);
	*tids = list;
	*count = vcpus;
	return 0;
}
