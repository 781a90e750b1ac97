/* SPDX-License-Identifier: MIT */
/* What the traced process of test_trace_events.c does: each checks its own memory by the way. */
#ifndef ROUSE_TESTS_TRACE_DEEDS_H
#define ROUSE_TESTS_TRACE_DEEDS_H

#include "trace_fixture.h"

#include <spawn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static bool wait_child(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool check_all(const char *memory, const uint32_t *generations)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		if (!checker_is_right(memory, page, generations[page]))
			return false;
	}
	return true;
}

/* Children see what was there when they were forked, whatever the parent writes meanwhile. */
static bool do_fork(struct checker_control *control, char *memory, uint32_t *generations)
{
	pid_t pid = fork();

	(void)control;
	if (pid == 0) {
		pid_t grandchild = fork();
		bool good = check_all(memory, generations);

		if (grandchild == 0)
			_exit(good ? 0 : 1);
		_exit(good && wait_child(grandchild) ? 0 : 1);
	}
	for (uint64_t page = 0; page < PAGES; page += 3)
		checker_stamp(memory, page, ++generations[page]);
	return wait_child(pid);
}

/* A child that gives memory back, writes and forks while it still lacks pages. */
static bool do_busy_child(struct checker_control *control, char *memory, uint32_t *generations)
{
	pid_t pid = fork();

	(void)control;
	if (pid == 0) {
		(void)madvise(memory + 2000 * CHECKER_PAGE, 500 * CHECKER_PAGE, MADV_DONTNEED);
		for (uint64_t page = 2000; page < 2500; page++)
			generations[page] = 0;
		for (uint64_t page = 2900; page < 2950; page++)
			checker_stamp(memory, page, ++generations[page]);
		(void)do_fork(control, memory, generations);
		_exit(check_all(memory, generations) ? 0 : 1);
	}
	return wait_child(pid);
}

static bool do_exec_child(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control, (void)memory, (void)generations;
	for (unsigned int i = 0; i < 5; i++) {
		char name[] = "true";
		char *const argv[] = {name, NULL};
		pid_t pid = 0;

		if (i % 2 == 0)
			pid = fork();
		else if (posix_spawn(&pid, "/bin/true", NULL, NULL, argv, NULL) != 0)
			return false;
		if (pid == 0) {
			(void)execv("/bin/true", argv);
			_exit(1);
		}
		if (!wait_child(pid))
			return false;
	}
	return true;
}

/* Pages that are given back are zeros from then on, touched or not. */
static bool do_give_back(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	for (uint64_t page = 100; page < 150; page++) {
		if (!checker_is_right(memory, page, generations[page]))
			return false;
	}
	if (madvise(memory + 100 * CHECKER_PAGE, 900 * CHECKER_PAGE, MADV_DONTNEED) < 0)
		return false;
	for (uint64_t page = 100; page < 1000; page++)
		generations[page] = 0;
	for (uint64_t page = 140; page < 200; page++) {
		if (!checker_is_right(memory, page, 0))
			return false;
	}
	for (uint64_t page = 160; page < 170; page++)
		checker_stamp(memory, page, ++generations[page]);
	return true;
}

/* The same for shared memory: the pages are unmapped, the data stays. */
static bool do_unmap_shared(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	return madvise(memory, 900 * CHECKER_PAGE, MADV_DONTNEED) == 0 &&
	       check_all(memory, generations);
}

static bool do_punch_shared(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	for (uint64_t page = 100; page < 150; page++) {
		if (!checker_is_right(memory, page, generations[page]))
			return false;
	}
	if (madvise(memory + 100 * CHECKER_PAGE, 900 * CHECKER_PAGE, MADV_REMOVE) < 0)
		return false;
	for (uint64_t page = 100; page < 1000; page++)
		generations[page] = 0;
	return checker_is_right(memory, 120, 0) && checker_is_right(memory, 800, 0);
}

static bool do_map_over(struct checker_control *control, char *memory, uint32_t *generations)
{
	char *at = memory + 1000 * CHECKER_PAGE;

	(void)control;
	if (munmap(at, 500 * CHECKER_PAGE) < 0 ||
		mmap(at, 500 * CHECKER_PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != at)
		return false;
	for (uint64_t page = 1000; page < 1500; page++)
		generations[page] = 0;
	for (uint64_t page = 1100; page < 1200; page++)
		checker_stamp(memory, page, ++generations[page]);
	return true;
}

/*
 * The upper part goes, and the lower part grows into its place, where zeros must be. Every second
 * time something else is mapped there in between.
 */
static bool do_grow_back(struct checker_control *control, char *memory, uint32_t *generations)
{
	const uint64_t kept = 1500;
	const size_t kept_bytes = kept * CHECKER_PAGE, bytes = PAGES * CHECKER_PAGE;

	if (control->step++ % 2 == 1 &&
		mmap(memory + kept_bytes, bytes - kept_bytes, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		return false;
	if (munmap(memory + kept_bytes, bytes - kept_bytes) < 0 ||
		mremap(memory, kept_bytes, bytes, 0) != memory)
		return false;
	for (uint64_t page = kept; page < PAGES; page++)
		generations[page] = 0;
	for (uint64_t page = 1800; page < 2400; page++) {
		if (!checker_is_right(memory, page, 0))
			return false;
	}
	for (uint64_t page = 2000; page < PAGES; page++)
		checker_stamp(memory, page, ++generations[page]);
	return true;
}

/* A child does it, while it still lacks pages. */
static bool do_grow_child(struct checker_control *control, char *memory, uint32_t *generations)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(do_grow_back(control, memory, generations) && check_all(memory, generations)
				? 0
				: 1);
	return wait_child(pid);
}

/* Takes a part away, looks at it there, takes a part of that back, and later the rest. */
static bool do_move(struct checker_control *control, char *memory, uint32_t *generations)
{
	const size_t size = 1000 * CHECKER_PAGE, half = size / 2;
	char *from = memory + 700 * CHECKER_PAGE, *to;

	(void)control;
	to = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (to == MAP_FAILED || mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
		return false;
	for (uint64_t page = 700; page < 1700; page += 2) {
		if (!checker_is_right(to - 700 * CHECKER_PAGE, page, generations[page]))
			return false;
		if (page % 10 == 0)
			checker_stamp(to - 700 * CHECKER_PAGE, page, ++generations[page]);
	}
	return mremap(to, half, half, MREMAP_MAYMOVE | MREMAP_FIXED, from) == from &&
	       mremap(to + half, half, half, MREMAP_MAYMOVE | MREMAP_FIXED, from + half) ==
		       from + half;
}

/* Puts a part over another, which is lost by it. */
static bool do_move_over(struct checker_control *control, char *memory, uint32_t *generations)
{
	const size_t size = 100 * CHECKER_PAGE;
	char *from = memory + 2000 * CHECKER_PAGE, *to = memory + 500 * CHECKER_PAGE;

	(void)control;
	if (mremap(from, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to ||
		mmap(from, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
			-1, 0) != from)
		return false;
	for (uint64_t page = 2000; page < 2100; page++) {
		if (!checker_is_right(memory - 1500 * CHECKER_PAGE, page, generations[page]))
			return false;
		generations[page] = 0;
		checker_stamp(memory, page - 1500, ++generations[page - 1500]);
	}
	return true;
}

/* Takes every second page away, looks at it there, and takes it back. */
static bool do_scatter(struct checker_control *control, char *memory, uint32_t *generations)
{
	const size_t size = PAGES * CHECKER_PAGE;
	char *there = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)control;
	if (there == MAP_FAILED)
		return false;
	for (uint64_t page = 0; page < PAGES; page += 2) {
		char *from = memory + page * CHECKER_PAGE, *to = there + page * CHECKER_PAGE;

		if (mremap(from, CHECKER_PAGE, CHECKER_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to) !=
			to)
			return false;
	}
	for (uint64_t page = 0; page < PAGES; page += 2) {
		char *from = memory + page * CHECKER_PAGE, *to = there + page * CHECKER_PAGE;

		if (!checker_is_right(there, page, generations[page]))
			return false;
		checker_stamp(there, page, ++generations[page]);
		if (mremap(to, CHECKER_PAGE, CHECKER_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, from) !=
			from)
			return false;
	}
	return check_all(memory, generations);
}

/* Step 0: parts become read-only or inaccessible. Step 1: they become as before. */
static bool do_protect(struct checker_control *control, char *memory, uint32_t *generations)
{
	if (control->step++ == 1)
		return mprotect(memory, PAGES * CHECKER_PAGE, PROT_READ | PROT_WRITE) == 0;
	if (mprotect(memory + 10 * CHECKER_PAGE, 300 * CHECKER_PAGE, PROT_READ) < 0 ||
		mprotect(memory + 1500 * CHECKER_PAGE, 900 * CHECKER_PAGE, PROT_NONE) < 0)
		return false;
	return checker_is_right(memory, 20, generations[20]);
}

static bool do_lock(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control;
	return mlock(memory + 500 * CHECKER_PAGE, 200 * CHECKER_PAGE) == 0 &&
	       checker_is_right(memory, 600, generations[600]);
}

static bool do_close_all(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control, (void)memory, (void)generations;
	return syscall(SYS_close_range, 3, ~0U, 0) == 0;
}

static bool do_advise(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control, (void)generations;
	return madvise(memory, 512 * CHECKER_PAGE, MADV_HUGEPAGE) == 0 &&
	       madvise(memory + 600 * CHECKER_PAGE, 100 * CHECKER_PAGE, MADV_DONTFORK) == 0 &&
	       madvise(memory + 800 * CHECKER_PAGE, 100 * CHECKER_PAGE, MADV_DONTDUMP) == 0;
}

static bool do_exec(struct checker_control *control, char *memory, uint32_t *generations)
{
	(void)control, (void)memory, (void)generations;
	(void)execl("/bin/sleep", "sleep", "1000", (char *)NULL);
	return false;
}

#endif
