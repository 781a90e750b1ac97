/* SPDX-License-Identifier: MIT */
/* A client of redis: commands are queued, sent together, and their replies read in order. */
#ifndef GUEST_REDIS_CLIENT_H
#define GUEST_REDIS_CLIENT_H

#include <stddef.h>
#include <stdint.h>

struct redis_client {
	int fd;
	size_t out_len;            /* bytes that wait to be sent */
	size_t in_pos, in_len;     /* what has been received and not been read */
	unsigned char out[262144]; /* the commands of one batch fit */
	unsigned char in[65536];   /* longer than the longest reply */
};

/** Connects to 127.0.0.1:@port; tries for @seconds. Free it with free(). 0 or -errno. */
int redis_connect(struct redis_client **client, unsigned int port, unsigned int seconds);
void redis_queue_get(struct redis_client *client, uint64_t key);
void redis_queue_set(struct redis_client *client, uint64_t key, const void *value, size_t len);
/** Sends what is queued. 0 or -errno. */
int redis_flush(struct redis_client *client);
/**
 * Waits for the next reply. @value: the bytes of the reply to a GET, valid until the next call;
 * NULL for a reply to a SET. Returns its length, 0 for a SET that went well, -ENOENT for a key that
 * is not there, or -errno.
 */
long redis_reply(struct redis_client *client, const unsigned char **value);

#endif
