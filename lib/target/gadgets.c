/* SPDX-License-Identifier: MIT */
/*
 * Instructions in the process that are used as they lie there, wherever in a file's code that is,
 * also in the middle of others. Every C library has both: the system calls without arguments are
 * `mov $N, %eax; syscall; ret`, and a signal handler returns into `mov $15, %rax; syscall`, for
 * which an assembler may write the shorter `mov $15, %eax; syscall`. Debuggers know a
 * handler's return by these bytes: they have been the same in all versions of glibc.
 */
#include "base/cleanup.h"
#include "target/target_private.h"

#include <string.h>

#ifdef __x86_64__

static const unsigned char syscall_bytes[] = {0x0f, 0x05, 0xc3};
static const unsigned char sigreturn_bytes[] = {
	0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};
static const unsigned char short_sigreturn_bytes[] = {0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05};
#define OVERLAP (sizeof(sigreturn_bytes) - 1)
#define PIECE_BYTES (256u << 10)

static void look(const char *bytes, size_t size, uint64_t address, struct target_gadgets *gadgets)
{
	const char *found;

	if (gadgets->syscall == 0) {
		found = memmem(bytes, size, syscall_bytes, sizeof(syscall_bytes));
		if (found != NULL)
			gadgets->syscall = address + (uint64_t)(found - bytes);
	}
	if (gadgets->sigreturn == 0) {
		found = memmem(bytes, size, sigreturn_bytes, sizeof(sigreturn_bytes));
		if (found == NULL)
			found = memmem(
				bytes, size, short_sigreturn_bytes, sizeof(short_sigreturn_bytes));
		if (found != NULL)
			gadgets->sigreturn = address + (uint64_t)(found - bytes);
	}
}

static bool complete(const struct target_gadgets *gadgets)
{
	return gadgets->syscall != 0 && gadgets->sigreturn != 0;
}

static void look_in_map(const struct target *target, const struct target_map *map, char *buffer,
	struct target_gadgets *gadgets)
{
	uint64_t at = map->start;

	while (at < map->end && !complete(gadgets)) {
		size_t size = PIECE_BYTES;

		if (size > map->end - at)
			size = (size_t)(map->end - at);
		if (target_read(target, at, buffer, size) < 0)
			return;
		look(buffer, size, at, gadgets);
		if (at + size == map->end)
			return;
		at += size - OVERLAP;
	}
}

/* Code out of a file cannot vanish, as that of a compiler at run time can. */
static bool is_steady_code(const struct target_map *map)
{
	return map->execute && map->read && !map->write && map->inode != 0;
}

bool target_is_c_library(const char *path)
{
	/* glibc's, its name before 2.34, and musl's two. */
	static const char *const names[] = {"libc.so", "libc-2", "libc.musl-", "ld-musl-"};
	const char *slash = strrchr(path, '/');

	for (size_t i = 0; slash != NULL && i < sizeof(names) / sizeof(names[0]); i++) {
		if (strncmp(slash + 1, names[i], strlen(names[i])) == 0)
			return true;
	}
	return false;
}

int target_find_gadgets(struct target *target, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	cleanup_free char *buffer = malloc(PIECE_BYTES);
	struct target_gadgets gadgets = {0};
	size_t count;
	int code;

	if (complete(&target->gadgets))
		return 0;
	if (buffer == NULL)
		return rouse_error_errno(error, -ENOMEM, "cannot look for code");
	code = target_maps(target, &maps, &count, error);
	if (code < 0)
		return code;
	/*
	 * The C library first: it has them, and is never unmapped as a plugin can be. Then any
	 * other code: of a program without one, for instance.
	 */
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < count && !complete(&gadgets); i++) {
			bool libc = target_is_c_library(maps[i].name);

			if (is_steady_code(&maps[i]) && libc == (pass == 0))
				look_in_map(target, &maps[i], buffer, &gadgets);
		}
	}
	if (!complete(&gadgets))
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"process %d has no instructions that a system call could be made with",
			target->pid);
	target->gadgets = gadgets;
	return 0;
}

#endif
