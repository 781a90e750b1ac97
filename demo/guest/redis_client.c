// SPDX-License-Identifier: MIT
#include "redis_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int try_connect(unsigned int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;
	int err;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

int redis_connect(struct redis_client **client, unsigned int port, unsigned int seconds)
{
	struct redis_client *new = calloc(1, sizeof(*new));

	if (!new)
		return -ENOMEM;
	for (unsigned int i = 0; i < seconds * 20; i++) {
		new->fd = try_connect(port);
		if (new->fd != -ECONNREFUSED)
			break;
		usleep(50000);
	}
	if (new->fd < 0) {
		int err = new->fd;

		free(new);
		return err;
	}
	*client = new;
	return 0;
}

static void queue_bytes(struct redis_client *client, const void *bytes, size_t len)
{
	if (client->out_len + len > sizeof(client->out))
		redis_flush(client);
	memcpy(client->out + client->out_len, bytes, len);
	client->out_len += len;
}

void redis_queue_get(struct redis_client *client, uint64_t key)
{
	char text[64];
	int len = snprintf(text, sizeof(text), "*2\r\n$3\r\nGET\r\n$10\r\nk:%08llu\r\n",
		(unsigned long long)key);

	queue_bytes(client, text, (size_t)len);
}

void redis_queue_set(struct redis_client *client, uint64_t key, const void *value, size_t len)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "*3\r\n$3\r\nSET\r\n$10\r\nk:%08llu\r\n$%zu\r\n",
		(unsigned long long)key, len);

	queue_bytes(client, text, (size_t)n);
	queue_bytes(client, value, len);
	queue_bytes(client, "\r\n", 2);
}

int redis_flush(struct redis_client *client)
{
	size_t done = 0;

	while (done < client->out_len) {
		ssize_t n =
			send(client->fd, client->out + done, client->out_len - done, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	client->out_len = 0;
	return 0;
}

/* Has at least @need bytes unread. */
static int receive(struct redis_client *client, size_t need)
{
	if (client->in_pos + need > sizeof(client->in)) {
		client->in_len -= client->in_pos;
		memmove(client->in, client->in + client->in_pos, client->in_len);
		client->in_pos = 0;
	}
	if (need > sizeof(client->in))
		return -EMSGSIZE;
	while (client->in_len - client->in_pos < need) {
		ssize_t n = recv(client->fd, client->in + client->in_len,
			sizeof(client->in) - client->in_len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EPIPE;
		client->in_len += (size_t)n;
	}
	return 0;
}

/* Reads a line that ends with CR LF; @line is NUL-terminated, without them. */
static int read_line(struct redis_client *client, char *line, size_t size)
{
	for (size_t len = 0; len + 1 < size; len++) {
		int err = receive(client, len + 1);

		if (err)
			return err;
		line[len] = (char)client->in[client->in_pos + len];
		if (line[len] == '\n') {
			client->in_pos += len + 1;
			line[len > 0 ? len - 1 : 0] = '\0';
			return 0;
		}
	}
	return -EMSGSIZE;
}

long redis_reply(struct redis_client *client, const unsigned char **value)
{
	char line[128];
	long len;
	int err = read_line(client, line, sizeof(line));

	if (err)
		return err;
	if (line[0] == '+')
		return 0;
	if (line[0] != '$' || !value)
		return -EPROTO;
	len = strtol(line + 1, NULL, 10);
	if (len < 0)
		return -ENOENT;
	err = receive(client, (size_t)len + 2);
	if (err)
		return err;
	*value = client->in + client->in_pos;
	client->in_pos += (size_t)len + 2;
	return len;
}
