// SPDX-License-Identifier: MIT
/*
 * A real redis, full of values of realistic entropy, and clients whose keys follow Zipf's law; one
 * request in ten writes. Every value that comes back is compared with what was last written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "content.h"
#include "link.h"
#include "redis_client.h"
#include "workload.h"
#include "zipf.h"

#define PORT 6379
#define CONNECT_SECONDS 30
#define FILL_BATCH 32    /* commands that are sent together while filling and verifying */
#define WRITE_PERCENT 10 /* of the commands */
#define VALUE_MIN 1024   /* bytes; lengths are evenly spread, multiples of 64 */
#define VALUE_STEPS 224
#define VALUE_MEAN (VALUE_MIN + 64 * (VALUE_STEPS - 1) / 2)
#define STAMPED_SHARE 8 /* one part in so many of the memory is stamped pages */
#define SKEW 2.0        /* Zipf exponent of the keys: few of them are hot, as in a cache */
#define CONTENT_ID_BASE (1ULL << 40) /* ids of values differ from those of pages */
#define REPORT_KEYS 8192

/*
 * Key k is written by one CPU only. It raises `sent` before the command goes out and `known` after
 * its reply, so a value that another CPU reads is of a generation from `known`, taken before the
 * command, to `sent`, taken after the reply.
 */
struct key_state {
	atomic_uint_fast32_t known, sent;
};

static struct {
	uint64_t keys;
	unsigned int cpus;
	struct key_state *state;
	struct redis_client **client; /* one for each CPU, and one for verify */
	struct zipf zipf;
} kv;

static size_t value_len(uint64_t key)
{
	return VALUE_MIN + 64 * (content_mix(key) % VALUE_STEPS);
}

static int spawn_redis(void)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		execl("/usr/bin/redis-server", "redis-server", "/etc/redis.conf", (char *)NULL);
		_exit(127);
	}
	return 0;
}

static void queue_set(struct redis_client *client, uint64_t key, uint32_t generation)
{
	static _Thread_local _Alignas(8) unsigned char value[CONTENT_MAX];
	size_t len = value_len(key);

	content_fill(value, len, CONTENT_ID_BASE + key, generation);
	redis_queue_set(client, key, value, len);
}

static int fill(struct redis_client *client)
{
	for (uint64_t key = 0; key < kv.keys; key += FILL_BATCH) {
		uint64_t end = key + FILL_BATCH < kv.keys ? key + FILL_BATCH : kv.keys;
		int err;

		for (uint64_t k = key; k < end; k++) {
			queue_set(client, k, 1);
			atomic_store(&kv.state[k].known, 1);
			atomic_store(&kv.state[k].sent, 1);
		}
		err = redis_flush(client);
		for (uint64_t k = key; k < end && !err; k++)
			err = (int)redis_reply(client, NULL);
		if (err)
			return err;
		if (key % REPORT_KEYS == 0)
			link_send("progress redis %llu %llu", (unsigned long long)key,
				(unsigned long long)kv.keys);
	}
	return 0;
}

static int kv_start(size_t mb, unsigned int cpus)
{
	int err;

	kv.cpus = cpus;
	kv.keys = (uint64_t)(mb - mb / STAMPED_SHARE) * 1048576 / VALUE_MEAN;
	kv.state = calloc(kv.keys, sizeof(*kv.state));
	kv.client = calloc(cpus + 1, sizeof(struct redis_client *));
	if (!kv.state || !kv.client)
		return -ENOMEM;
	err = zipf_init(&kv.zipf, kv.keys, SKEW);
	if (!err)
		err = stamp_region_new(NULL, mb / STAMPED_SHARE, "anonymous");
	if (!err)
		err = spawn_redis();
	for (unsigned int i = 0; i <= cpus && !err; i++)
		err = redis_connect(&kv.client[i], PORT, CONNECT_SECONDS);
	return err ? err : fill(kv.client[cpus]);
}

static int value_right(const unsigned char *value, long len, uint64_t key, uint32_t known)
{
	_Alignas(8) unsigned char copy[CONTENT_MAX];
	uint32_t sent = (uint32_t)atomic_load(&kv.state[key].sent);

	if (len < 0 || (size_t)len != value_len(key))
		return 0;
	memcpy(copy, value, (size_t)len);
	for (uint32_t generation = known; generation <= sent; generation++) {
		if (content_check(copy, (size_t)len, CONTENT_ID_BASE + key, generation))
			return 1;
	}
	return 0;
}

struct command {
	uint64_t key;
	uint32_t known;
	int writes;
};

static void queue_command(struct redis_client *client, struct command *command)
{
	struct key_state *state = &kv.state[command->key];

	command->known = (uint32_t)atomic_load(&state->known);
	if (command->writes)
		queue_set(client, command->key, (uint32_t)atomic_fetch_add(&state->sent, 1) + 1);
	else
		redis_queue_get(client, command->key);
}

static void finish_command(struct redis_client *client, const struct command *command)
{
	const unsigned char *value = NULL;
	long len = redis_reply(client, command->writes ? NULL : &value);

	if (command->writes) {
		if (len < 0)
			errors_add();
		else
			atomic_fetch_add(&kv.state[command->key].known, 1);
	} else if (!value_right(value, len, command->key, command->known)) {
		errors_add();
	}
}

static void kv_request(unsigned int cpu, uint64_t state)
{
	struct redis_client *client = kv.client[cpu];
	struct command command = {
		.key = zipf_choose(&kv.zipf, &state),
		.writes = content_next(&state) % 100 < WRITE_PERCENT,
	};

	/* a key has one writer: take the nearest key that belongs to this CPU */
	if (command.writes) {
		command.key += cpu - command.key % kv.cpus;
		if (command.key >= kv.keys)
			command.key = cpu;
	}
	queue_command(client, &command);
	if (redis_flush(client))
		errors_add();
	finish_command(client, &command);
}

/* Reads and compares the values of @count keys. 0 or -errno. */
static int verify_batch(
	struct redis_client *client, uint64_t first, uint64_t count, struct stamp_result *result)
{
	struct command command[FILL_BATCH];

	for (uint64_t i = 0; i < count; i++) {
		command[i] = (struct command){.key = first + i};
		queue_command(client, &command[i]);
	}
	if (redis_flush(client))
		return -EPIPE;
	for (uint64_t i = 0; i < count; i++) {
		const unsigned char *value = NULL;
		long len = redis_reply(client, &value);

		result->pages += (value_len(first + i) + STAMP_PAGE - 1) / STAMP_PAGE;
		if (!value_right(value, len, first + i, command[i].known))
			result->errors++;
	}
	return 0;
}

static struct stamp_result kv_verify(void)
{
	struct stamp_result result = {0};

	for (uint64_t key = 0; key < kv.keys; key += FILL_BATCH) {
		uint64_t count = key + FILL_BATCH < kv.keys ? FILL_BATCH : kv.keys - key;

		if (verify_batch(kv.client[kv.cpus], key, count, &result)) {
			result.errors++;
			break;
		}
	}
	return result;
}

const struct workload workload_kv = {
	.name = "kv",
	.start = kv_start,
	.request = kv_request,
	.verify = kv_verify,
};
