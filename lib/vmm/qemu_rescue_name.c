/* SPDX-License-Identifier: MIT */
/* The addresses by which connections in QEMU are found: text in, text out, no I/O. */
#include "vmm/qemu_rescue.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_PREFIX "rouse-monitor/"

void qemu_rescue_name_format(const struct qemu_rescue_name *name, char text[QEMU_RESCUE_TEXT])
{
	/* 14 + 16 + 1 + 16 + 1 + 16 + 1 + 16 + 1 + 10: fits. */
	(void)snprintf(text, QEMU_RESCUE_TEXT, NAME_PREFIX "%llx:%llx/%016llx/%016llx/%d",
		(unsigned long long)name->device, (unsigned long long)name->inode,
		(unsigned long long)name->checkpoint, (unsigned long long)name->nonce, name->pid);
}

static uint64_t take_number(const char **text, int base)
{
	char *end;
	uint64_t value = strtoull(*text, &end, base);

	/* A missing number is 0, a missing separator shifts the rest: neither is written so again.
	 */
	*text = *end != '\0' ? end + 1 : end;
	return value;
}

static int parse_name(const char *text, struct qemu_rescue_name *name)
{
	const char *at = text + strlen(NAME_PREFIX);
	char again[QEMU_RESCUE_TEXT];

	if (strncmp(text, NAME_PREFIX, strlen(NAME_PREFIX)) != 0)
		return -ENOENT;
	name->device = take_number(&at, 16);
	name->inode = take_number(&at, 16);
	name->checkpoint = take_number(&at, 16);
	name->nonce = take_number(&at, 16);
	name->pid = (int)take_number(&at, 10);
	/* Only what we would write ourselves is one of ours. */
	qemu_rescue_name_format(name, again);
	return name->pid > 0 && strcmp(text, again) == 0 ? 0 : -ENOENT;
}

/*
 *	Num       RefCount Protocol Flags    Type St Inode Path
 *	ffff8880: 00000003 00000000 00000000 0001 03 30817 @rouse-monitor/...
 */
int qemu_rescue_parse_line(const char *line, struct qemu_rescue_name *name, uint64_t *inode)
{
	char text[QEMU_RESCUE_TEXT + 1];
	const char *at = strchr(line, '@');
	size_t length, spaces = 0;

	if (at == NULL)
		return -ENOENT;
	length = strcspn(at + 1, "\n");
	if (length >= sizeof(text))
		return -ENOENT;
	memcpy(text, at + 1, length);
	text[length] = '\0';
	/* The number before the path, which is the seventh word. */
	for (const char *c = line; c < at; c++)
		spaces += *c == ' ' && c[1] != ' ';
	if (at == line || at[-1] != ' ' || spaces != 7)
		return -ENOENT;
	for (at--; at > line && at[-1] >= '0' && at[-1] <= '9'; at--)
		;
	*inode = strtoull(at, NULL, 10);
	return *inode > 0 ? parse_name(text, name) : -ENOENT;
}
