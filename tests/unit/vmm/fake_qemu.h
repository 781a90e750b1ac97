/* SPDX-License-Identifier: MIT */
/*
 * A fake QEMU for the postcopy sink: a thread at the other end of its monitor, and one at the other
 * end of its migration connection. What a real QEMU does is for the end-to-end tests.
 */
#ifndef ROUSE_TESTS_FAKE_QEMU_H
#define ROUSE_TESTS_FAKE_QEMU_H

#include "base/endian.h"
#include "base/io.h"
#include "vmm/qemu_return_path.h"
#include "vmm/qemu_sink.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAKE_DEVICES "the device sections"
#define FAKE_PAGES 4u
#define FAKE_ZERO_PAGE 3u /* that no Rouse has placed yet */

static const struct qemu_block fake_blocks[] = {
	{.name = "pc.ram", .used_bytes = FAKE_PAGES * QEMU_PAGE_BYTES, .first_page = 0},
};

struct fake_qemu {
	int monitor, migration; /* its ends */
	pthread_t monitor_thread, migration_thread;
	const char *state; /* what query-status says */
	bool refuses_cont;
	atomic_uint conts, devices_seen; /* devices_seen: of the migration */
	unsigned int devices_at_cont;    /* how much of them had come at the first cont */
	bool ended;                      /* a resumed migration, in good order */
};

static inline void fake_say(const struct fake_qemu *fake, const char *text)
{
	(void)!send(fake->monitor, text, strlen(text), MSG_NOSIGNAL);
}

static inline void fake_answer(const struct fake_qemu *fake, const char *answer, long long id)
{
	char line[256];

	(void)snprintf(line, sizeof(line), "{%s, \"id\": %lld}\r\n", answer, id);
	fake_say(fake, line);
}

static inline void fake_answer_status(struct fake_qemu *fake, long long id)
{
	char answer[128];

	(void)snprintf(answer, sizeof(answer), "\"return\": {\"status\": \"%s\"}", fake->state);
	fake_answer(fake, answer, id);
}

static inline void fake_obey(struct fake_qemu *fake, const char *command, long long id)
{
	if (strcmp(command, "query-status") == 0) {
		fake_answer_status(fake, id);
	} else if (strcmp(command, "query-cpus-fast") == 0) {
		fake_answer(fake, "\"return\": []", id);
	} else if (strcmp(command, "cont") == 0) {
		if (atomic_fetch_add(&fake->conts, 1) == 0)
			fake->devices_at_cont = atomic_load(&fake->devices_seen);
		fake_answer(fake,
			fake->refuses_cont ? "\"error\": {\"desc\": \"a disk is in use\"}"
					   : "\"return\": {}",
			id);
	} else {
		fake_answer(fake, "\"return\": {}", id);
	}
}

static inline void *fake_play_monitor(void *argument)
{
	struct fake_qemu *fake = argument;
	FILE *in = fdopen(dup(fake->monitor), "r");
	char line[1024];

	fake_say(fake, "{\"QMP\": {\"capabilities\": []}}\r\n");
	while (in != NULL && fgets(line, sizeof(line), in) != NULL) {
		json_t *message = json_loads(line, 0, NULL);

		fake_obey(fake, json_string_value(json_object_get(message, "execute")),
			json_integer_value(json_object_get(message, "id")));
		json_decref(message);
	}
	if (in != NULL)
		(void)fclose(in);
	return NULL;
}

/* A message of the return path. */
static inline void fake_return(
	const struct fake_qemu *fake, enum qemu_reply type, const void *data, uint16_t size)
{
	uint8_t bytes[QEMU_RETURN_MESSAGE_MAX];

	be16_store(bytes, (uint16_t)type);
	be16_store(bytes + 2, size);
	memcpy(bytes + 4, data, size);
	(void)!send(fake->migration, bytes, 4u + size, MSG_NOSIGNAL);
}

static inline void fake_return_value(
	const struct fake_qemu *fake, enum qemu_reply type, uint32_t value)
{
	uint8_t data[4];

	be32_store(data, value);
	fake_return(fake, type, data, sizeof(data));
}

/* A migration from its beginning on: says that the devices are loaded, and that the VM runs. */
static inline void *fake_play_migration(void *argument)
{
	static const char devices[] = FAKE_DEVICES;
	struct fake_qemu *fake = argument;
	char byte;

	while (read(fake->migration, &byte, 1) == 1) {
		unsigned int seen = atomic_load(&fake->devices_seen);

		if (seen == strlen(devices))
			continue;
		seen = byte == devices[seen] ? seen + 1 : byte == devices[0];
		atomic_store(&fake->devices_seen, seen);
		if (seen < strlen(devices))
			continue;
		fake_return_value(fake, QEMU_REPLY_PONG, 3);
		fake_say(fake, "{\"event\": \"RESUME\"}\r\n");
	}
	return NULL;
}

/* A migration that is taken over: all pages are there but the one that is zero. */
static inline void fake_tell_what_is_there(const struct fake_qemu *fake)
{
	const char *name = fake_blocks[0].name;
	uint8_t data[64], bitmap[24] = {0};

	data[0] = (uint8_t)strlen(name);
	memcpy(data + 1, name, strlen(name));
	fake_return(fake, QEMU_REPLY_RECV_BITMAP, data, (uint16_t)(1 + strlen(name)));
	be64_store(bitmap, 8);
	bitmap[8] = (1u << FAKE_PAGES) - 1 - (1u << FAKE_ZERO_PAGE);
	be64_store(bitmap + 16, QEMU_RECV_BITMAP_END);
	(void)!send(fake->migration, bitmap, sizeof(bitmap), MSG_NOSIGNAL);
	fake_return_value(fake, QEMU_REPLY_RESUME_ACK, 1);
}

static inline bool fake_read(const struct fake_qemu *fake, void *buffer, size_t size)
{
	return rouse_io_read(fake->migration, buffer, size) == (ssize_t)size;
}

/* Reads a page's record. False: it was none, but the end of all pages. */
static inline bool fake_read_page(const struct fake_qemu *fake)
{
	uint8_t word[8], name[256], data[QEMU_PAGE_BYTES];
	uint64_t flags;

	if (!fake_read(fake, word, sizeof(word)))
		return false;
	flags = be64_load(word);
	if ((flags & (QEMU_RAM_ZERO | QEMU_RAM_PAGE)) == 0)
		return false;
	if ((flags & QEMU_RAM_CONTINUE) == 0 &&
		(!fake_read(fake, name, 1) || !fake_read(fake, name + 1, name[0])))
		return false;
	return fake_read(fake, data, (flags & QEMU_RAM_ZERO) != 0 ? 1 : sizeof(data));
}

/* PART pages EOS footer | END EOS footer | EOF; then it says that it has all. */
static inline void *fake_play_resumed(void *argument)
{
	struct fake_qemu *fake = argument;
	uint8_t part[5], rest[5 + 5 + 8 + 5 + 1];

	if (!fake_read(fake, part, sizeof(part)))
		return NULL;
	while (fake_read_page(fake))
		;
	fake->ended = fake_read(fake, rest, sizeof(rest)) && rest[5] == QEMU_VM_SECTION_END;
	fake_return_value(fake, QEMU_REPLY_SHUT, 0);
	(void)shutdown(fake->migration, SHUT_RDWR);
	return NULL;
}

/* Starts it; @resumed: with a migration that is taken over. The connections are in @config. */
static inline int fake_start(struct fake_qemu *fake, bool resumed, struct qemu_sink_config *config)
{
	int monitor[2], migration[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor) < 0 ||
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, migration) < 0)
		return -errno;
	fake->monitor = monitor[0];
	fake->migration = migration[0];
	if (resumed)
		fake_tell_what_is_there(fake);
	if (pthread_create(&fake->monitor_thread, NULL, fake_play_monitor, fake) != 0 ||
		pthread_create(&fake->migration_thread, NULL,
			resumed ? fake_play_resumed : fake_play_migration, fake) != 0)
		return -EAGAIN;
	config->fd = migration[1];
	config->blocks = fake_blocks;
	config->block_count = 1;
	config->devices = FAKE_DEVICES;
	config->devices_size = strlen(FAKE_DEVICES);
	return qmp_attach(monitor[1], 5000, config->observer, &config->qmp, NULL);
}

/* After the sink has been destroyed. */
static inline void fake_stop(struct fake_qemu *fake, struct qmp *qmp)
{
	qmp_close(qmp);
	(void)pthread_join(fake->migration_thread, NULL);
	(void)pthread_join(fake->monitor_thread, NULL);
	(void)close(fake->migration);
	(void)close(fake->monitor);
}

#endif
