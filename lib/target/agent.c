/* SPDX-License-Identifier: MIT */
#include "target/agent.h"

#include "base/cleanup.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096u
/* As pthread_create(3) of glibc does it: what a process may do in any case. */
#define CLONE_FLAGS                                                                         \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | \
		CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

/* A system call there; its error is ours. */
static int64_t remote(struct target *target, long number, const uint64_t arguments[6],
	const void *data, size_t data_bytes, const char *what, struct rouse_error *error)
{
	int64_t result;
	int code = target_call(target, number, arguments, data, data_bytes, &result, error);

	if (code < 0)
		return code;
	if (result < 0)
		return rouse_error_errno(
			error, (int)result, "process %d cannot %s", target_pid(target), what);
	return result;
}

static int remote_unmap(
	struct target *target, uint64_t address, uint64_t bytes, struct rouse_error *error)
{
	const uint64_t arguments[6] = {address, bytes};
	int64_t code = remote(target, SYS_munmap, arguments, NULL, 0, "unmap memory", error);

	return code < 0 ? (int)code : 0;
}

static int remote_close(struct target *target, int fd, struct rouse_error *error)
{
	const uint64_t arguments[6] = {(uint64_t)fd};
	int64_t code = remote(target, SYS_close, arguments, NULL, 0, "close a file", error);

	return code < 0 ? (int)code : 0;
}

/* The memfd, filled and sealed, here and there. */
static int make_memory(struct target *target, const char *name, const void *code, size_t code_bytes,
	struct target_agent *agent, int *remote_fd, struct rouse_error *error)
{
	struct stat status;
	const uint64_t arguments[6] = {TARGET_DATA, MFD_CLOEXEC | MFD_ALLOW_SEALING};
	int64_t result = remote(target, SYS_memfd_create, arguments, name, strlen(name) + 1,
		"make memory to share", error);

	if (result < 0)
		return (int)result;
	*remote_fd = (int)result;
	agent->fd = target_fetch_fd(target, *remote_fd);
	if (agent->fd < 0)
		return rouse_error_errno(error, agent->fd, "cannot get memory out of process %d",
			target_pid(target));
	if (fstat(agent->fd, &status) < 0 ||
		ftruncate(agent->fd, (off_t)(agent->code_bytes + agent->data_bytes)) < 0 ||
		fcntl(agent->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0 ||
		pwrite(agent->fd, code, code_bytes, 0) != (ssize_t)code_bytes)
		return rouse_error_errno(error, -errno, "cannot prepare memory to share");
	agent->inode = status.st_ino;
	agent->data = mmap(NULL, agent->data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, agent->fd,
		(off_t)agent->code_bytes);
	if (agent->data == MAP_FAILED) {
		agent->data = NULL;
		return rouse_error_errno(error, -errno, "cannot map memory to share");
	}
	/* Our children are not agents, and must not look like it. */
	(void)madvise(agent->data, agent->data_bytes, MADV_DONTFORK);
	return 0;
}

static int map_memory(
	struct target *target, struct target_agent *agent, int remote_fd, struct rouse_error *error)
{
	const uint64_t fd = (uint64_t)remote_fd;
	const uint64_t code[6] = {0, agent->code_bytes, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0};
	const uint64_t data[6] = {
		0, agent->data_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, agent->code_bytes};
	int64_t result = remote(target, SYS_mmap, code, NULL, 0,
		"execute new code (a security module may forbid it)", error);

	if (result < 0)
		return (int)result;
	agent->code_address = (uint64_t)result;
	result = remote(target, SYS_mmap, data, NULL, 0, "map memory", error);
	if (result < 0)
		return (int)result;
	agent->data_address = (uint64_t)result;
	/* A child has no thread of ours, and no use for this. */
	for (unsigned int i = 0; i < 2; i++) {
		const uint64_t advice[6] = {i == 0 ? agent->code_address : agent->data_address,
			i == 0 ? agent->code_bytes : agent->data_bytes, MADV_DONTFORK};

		result = remote(target, SYS_madvise, advice, NULL, 0, "advise on memory", error);
		if (result < 0)
			return (int)result;
	}
	return 0;
}

int target_agent_load(struct target *target, const char *name, const void *code, size_t code_bytes,
	size_t data_bytes, struct target_agent *agent, struct rouse_error *error)
{
	int result, remote_fd = -1, closed = 0;

	*agent = (struct target_agent){
		.fd = -1,
		.code_bytes = (code_bytes + PAGE - 1) / PAGE * PAGE,
		.data_bytes = (data_bytes + PAGE - 1) / PAGE * PAGE,
	};
	result = make_memory(target, name, code, code_bytes, agent, &remote_fd, error);
	if (result == 0)
		result = map_memory(target, agent, remote_fd, error);
	if (remote_fd >= 0)
		closed = remote_close(target, remote_fd, result == 0 ? error : NULL);
	if (result == 0)
		result = closed;
	if (result < 0) {
		(void)target_agent_unload(target, agent, NULL);
		target_agent_finish(agent);
	}
	return result;
}

int target_agent_start(struct target *target, const struct target_agent *agent, size_t stack_end,
	size_t tid_offset, struct rouse_error *error)
{
	const uint64_t tid = agent->data_address + tid_offset;
	const uint64_t words[2] = {agent->code_address, agent->data_address};
	const uint64_t stack = agent->data_address + stack_end - sizeof(words);
	const uint64_t arguments[6] = {CLONE_FLAGS, stack, tid, tid, 0, 0};
	int64_t result;
	int code;

	memcpy(agent->data + stack_end - sizeof(words), words, sizeof(words));
	/* It inherits the blocked signals of the call. */
	code = target_call(target, SYS_clone, arguments, NULL, 0, &result, error);
	if (code == 0 && result < 0)
		code = rouse_error_errno(
			error, (int)result, "process %d cannot start a thread", target_pid(target));
	return code;
}

/* Whether what is mapped at @address is ours. */
static bool is_ours(const struct target_map *maps, size_t count, uint64_t address, uint64_t bytes,
	uint64_t inode)
{
	for (size_t i = 0; i < count; i++) {
		if (maps[i].start == address)
			return maps[i].end == address + bytes && maps[i].inode == inode &&
			       maps[i].shared && strncmp(maps[i].name, "/memfd:", 7) == 0;
	}
	return false;
}

int target_agent_unload(
	struct target *target, const struct target_agent *agent, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t count;
	int code = target_maps(target, &maps, &count, error);

	if (code == 0 && is_ours(maps, count, agent->data_address, agent->data_bytes, agent->inode))
		code = remote_unmap(target, agent->data_address, agent->data_bytes, error);
	if (code == 0 && is_ours(maps, count, agent->code_address, agent->code_bytes, agent->inode))
		code = remote_unmap(target, agent->code_address, agent->code_bytes, error);
	return code;
}

void target_agent_finish(struct target_agent *agent)
{
	if (agent->data != NULL)
		(void)munmap(agent->data, agent->data_bytes);
	if (agent->fd >= 0)
		(void)close(agent->fd);
	agent->data = NULL;
	agent->fd = -1;
}
