/* SPDX-License-Identifier: MIT */
/*
 * The line to the host: the second serial port. Lines of text in both directions.
 *
 * Sending never blocks the caller: what is sent is queued and a thread writes it. Records of
 * requests have a queue for each CPU, so that a request costs no lock; if the serial port is too
 * slow for them, records are dropped and their number is told.
 */
#ifndef GUEST_LINK_H
#define GUEST_LINK_H

#include <stddef.h>
#include <stdint.h>

/** Opens the serial port and starts the thread that writes. 0 or -errno. */
int link_open(const char *path, unsigned int cpus);
/** Waits for a line; without its newline. 0 or -errno. */
int link_read_line(char *line, size_t size);
/** Queues one line; the newline is added. From any thread. */
void link_send(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** Queues the record of a request, from the only thread that makes records for @cpu. */
void link_record(unsigned int cpu, uint64_t seq, uint64_t start_us, uint64_t end_us);
/** Whether records are sent (they are, at first) or forgotten. */
void link_set_quiet(int quiet);

/** Microseconds of CLOCK_MONOTONIC. */
uint64_t link_now_us(void);

#endif
