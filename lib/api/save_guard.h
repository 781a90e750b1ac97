/* SPDX-License-Identifier: MIT */
/*
 * Reads on if we are killed. QEMU before 9.0 does not lift the write protection of a background
 * snapshot that breaks off: the guest would hang. A small process holds the stream's socket beside
 * us; when we are gone it reads the rest and throws it away, so that QEMU comes to the end.
 */
#ifndef ROUSE_API_SAVE_GUARD_H
#define ROUSE_API_SAVE_GUARD_H

struct save_guard {
	int lifeline; /**< the guard sees it close when we are gone */
	int pid;      /**< 0: none */
};

/** Starts it for @fd, which stays the caller's. -EMFILE, -EAGAIN, -ENOMEM. */
int save_guard_start(struct save_guard *guard, int fd);
/**
 * Leaves the stream to it, as if we had been killed: it reads the rest, however long that takes,
 * and ends. Its entry among our children stays until we end. Safe without a start.
 */
void save_guard_leave(struct save_guard *guard);
/** Ends it. The stream must have come to its end, or this waits for that. Safe without a start. */
void save_guard_end(struct save_guard *guard);

#endif
