/* SPDX-License-Identifier: MIT */
/*
 * A process that checks its own memory all the time. Each of its pages carries its number, a
 * generation and a hash over the whole page; the generations are kept elsewhere. Threads read and
 * check pages, and write some anew. Whoever takes a byte of it away, or brings an old one back, is
 * found out.
 */
#ifndef ROUSE_TESTS_CHECKER_H
#define ROUSE_TESTS_CHECKER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Who is killed at every system call of several hundred is run up to each: with sanitizers, which
 * are there for what it does and not for when it is killed, at every fifth.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECKER_STRIDE 5u
#else
#define CHECKER_STRIDE 1u
#endif

#define CHECKER_PAGE 4096u
#define CHECKER_THREADS 3u

enum checker_order {
	CHECKER_REST,  /* touches nothing */
	CHECKER_WORK,  /* threads check and write for ever */
	CHECKER_TOUCH, /* touches the pages of the list, once, in its order, then rests */
	CHECKER_CALL,  /* calls the function, then rests */
	CHECKER_CHECK, /* checks every page once, then rests */
};

struct checker_list {
	uint32_t page;
	bool write;
};

/** Shared with the process. */
struct checker_control {
	uint32_t order;       /* enum checker_order */
	uint32_t number;      /* of the order, raised by checker_order() */
	uint32_t done;        /* the number of the last order that was carried out; futex */
	uint64_t errors;      /* pages that were not as they must be */
	uint64_t checked;     /* pages */
	uint64_t first_wrong; /* page number + 1 */
	uint64_t address, pages;
	uint32_t quiet_threads; /* how many rest */
	uint32_t step;          /* for functions of CHECKER_CALL: their own */
	uint32_t list_count;
	struct checker_list list[65536];
};

struct checker {
	pid_t pid;
	struct checker_control *control;
};

struct checker_config {
	uint64_t pages;
	bool shared;         /* a memfd, mapped shared */
	bool huge;           /* MADV_HUGEPAGE */
	uint64_t holes_from; /* pages from here on are never written; 0: none */
	/* For CHECKER_CALL: what the process does. False counts as an error. */
	bool (*call)(struct checker_control *control, char *memory, uint32_t *generations);
};

/* For such functions. A page of generation 0 is zeros. */
bool checker_is_right(const char *memory, uint64_t page, uint32_t generation);
void checker_stamp(char *memory, uint64_t page, uint32_t generation);

void checker_start(struct checker *checker, const struct checker_config *config);
/** Gives an order, and waits until it has been carried out (WORK: has begun). False: it died. */
bool checker_order(struct checker *checker, enum checker_order order);
/** The same, within so many seconds; false also if it is not done then. */
bool checker_order_within(struct checker *checker, enum checker_order order, unsigned int seconds);
/** Waits until @count more pages have been checked. */
bool checker_wait(struct checker *checker, uint64_t count);
/** Checks everything, ends the process: true if no page was ever wrong. */
bool checker_end(struct checker *checker);

#endif
