/* SPDX-License-Identifier: MIT */
#include "bench_qemu.h"

#include "tool.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* QEMU takes one after the other; nobody has to read the answers meanwhile, they are short. */
#define COMMANDS                                \
	"{\"execute\": \"qmp_capabilities\"}\n" \
	"{\"execute\": \"query-kvm\"}\n"        \
	"{\"execute\": \"quit\"}\n"

static const struct bench_step kind_steps[] = {{0, 10000}, {SIGTERM, 5000}, {SIGKILL, 10000}};
static const struct bench_step hard_steps[] = {{SIGKILL, 10000}};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		(void)close(fd);
		fd = -1;
	}
	return fd;
}

/* Who listens there; 0: unknown. */
static pid_t listener_of(int fd)
{
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

static void read_line_facts(const json_t *line, struct bench_qemu_facts *facts)
{
	const json_t *kvm = json_object_get(json_object_get(line, "return"), "enabled");
	int major, minor, micro;

	if (json_unpack((json_t *)(uintptr_t)line, "{s:{s:{s:{s:i, s:i, s:i}}}}", "QMP", "version",
		    "qemu", "major", &major, "minor", &minor, "micro", &micro) == 0)
		(void)snprintf(
			facts->version, sizeof(facts->version), "%d.%d.%d", major, minor, micro);
	if (json_is_boolean(kvm))
		(void)snprintf(facts->accel, sizeof(facts->accel), "%s",
			json_is_true(kvm) ? "kvm" : "tcg");
}

void bench_qemu_read_facts(const char *said, struct bench_qemu_facts *facts)
{
	while (*said != '\0') {
		size_t length = strcspn(said, "\n");
		json_t *line = json_loadb(said, length, 0, NULL);

		read_line_facts(line, facts);
		json_decref(line);
		said += length + (said[length] == '\n');
	}
}

/* What it said is still there when it has ended. */
static void hear(int fd, struct bench_qemu_facts *facts)
{
	char said[8192];
	size_t used = 0;
	ssize_t n;

	while (used < sizeof(said) - 1 &&
		(n = recv(fd, said + used, sizeof(said) - 1 - used, MSG_DONTWAIT)) > 0)
		used += (size_t)n;
	said[used] = '\0';
	bench_qemu_read_facts(said, facts);
}

bool bench_qemu_end(struct bench_signals *signals, const char *monitor, bool kindly,
	struct bench_qemu_facts *facts)
{
	struct bench_process process = BENCH_NO_PROCESS;
	const int fd = connect_to(monitor);
	const pid_t listener = listener_of(fd);
	bool ended = true;

	/* While it is connected the number is its own. */
	if (listener > 0 && bench_process_take(&process, listener) == 0) {
		kindly = kindly && send(fd, COMMANDS, strlen(COMMANDS), MSG_NOSIGNAL) ==
					   (ssize_t)strlen(COMMANDS);
		ended = bench_process_end(&process, signals, kindly ? kind_steps : hard_steps,
			kindly ? COUNT(kind_steps) : COUNT(hard_steps));
		hear(fd, facts);
	}
	bench_process_close(&process);
	if (fd >= 0)
		(void)close(fd);
	(void)unlink(monitor);
	return ended;
}
