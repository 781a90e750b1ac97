/* SPDX-License-Identifier: MIT */
#include "vmm/vcpu_threads.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static json_int_t thread_of(const json_t *cpus, size_t index)
{
	return json_integer_value(json_object_get(json_array_get(cpus, index), "thread-id"));
}

/* Whether an earlier vCPU has the same thread. */
static bool is_known(const json_t *cpus, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (thread_of(cpus, i) == thread_of(cpus, index))
			return true;
	}
	return false;
}

static int open_file(pid_t pid, json_int_t thread, const char *file)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%lld/%s", pid, (long long)thread, file);
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int open_all(const json_t *cpus, pid_t pid, const char *file, int **fds, size_t *count)
{
	const size_t vcpus = json_array_size(cpus);

	*count = 0;
	*fds = malloc((vcpus + 1) * sizeof(**fds));
	if (*fds == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < vcpus; i++) {
		int fd;

		if (is_known(cpus, i))
			continue;
		fd = open_file(pid, thread_of(cpus, i), file);
		if (fd < 0)
			return -ENOTSUP;
		(*fds)[(*count)++] = fd;
	}
	return *count > 0 ? 0 : -ENOTSUP;
}

int vcpu_threads_open(struct qmp *qmp, pid_t pid, const char *file, int **fds, size_t *count)
{
	json_t *cpus = NULL;
	int code = qmp_execute(qmp, "query-cpus-fast", NULL, &cpus, NULL);

	if (code < 0)
		return code;
	code = open_all(cpus, pid, file, fds, count);
	json_decref(cpus);
	if (code < 0) {
		vcpu_threads_close(*fds, *count);
		*fds = NULL;
		*count = 0;
	}
	return code;
}

static bool has_thread(pid_t pid, uint32_t thread)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%u", pid, thread);
	return access(path, F_OK) == 0;
}

static int list_all(const json_t *cpus, pid_t pid, uint32_t **threads, size_t *count)
{
	cleanup_free uint32_t *list = NULL;

	*count = json_array_size(cpus);
	if (*count == 0)
		return -ENOTSUP;
	list = calloc(*count, sizeof(*list));
	if (list == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < *count; i++) {
		list[i] = (uint32_t)thread_of(cpus, i);
		if (list[i] == 0 || !has_thread(pid, list[i]))
			return -ENOTSUP;
	}
	*threads = take_ptr(&list);
	return 0;
}

int vcpu_threads_list(struct qmp *qmp, pid_t pid, uint32_t **threads, size_t *count)
{
	json_t *cpus = NULL;
	int code = qmp_execute(qmp, "query-cpus-fast", NULL, &cpus, NULL);

	if (code < 0)
		return code;
	code = list_all(cpus, pid, threads, count);
	json_decref(cpus);
	return code;
}

void vcpu_threads_close(int *fds, size_t count)
{
	if (fds == NULL)
		return;
	for (size_t i = 0; i < count; i++)
		cleanup_close_fn(&fds[i]);
	free(fds);
}
