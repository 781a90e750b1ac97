/* SPDX-License-Identifier: MIT */
/*
 * QEMU's outgoing migration, as a save uses it: set up, started, watched, and everything that was
 * changed for it put back.
 */
#ifndef ROUSE_API_SAVE_MIGRATE_H
#define ROUSE_API_SAVE_MIGRATE_H

#include "vmm/qmp.h"

enum save_migration_state {
	SAVE_MIGRATION_NONE,
	SAVE_MIGRATION_ACTIVE,
	SAVE_MIGRATION_COMPLETED,
	SAVE_MIGRATION_FAILED, /**< or cancelled */
};

struct save_migrate {
	struct qmp *qmp;
	const struct rouse_observer *observer;
	bool background; /**< the capability background-snapshot is on */
	bool fragile;    /**< the stream must not break off: see save_guard.h */
	bool lent;       /**< QEMU has a descriptor of the stream */
	bool started;    /**< `migrate` was accepted, or its answer is not known */
	bool ended;      /**< QEMU has: nothing can be put back, and need be */
	json_t *old_capabilities, *old_parameters; /**< to put back; or NULL */
};

/** -EBUSY if a migration is under way already. */
int save_migrate_check_idle(struct save_migrate *migrate, struct rouse_error *error);

/**
 * Switches off the capabilities that change the stream, and background-snapshot on if @background
 * and QEMU can; ->background says so. Raises the limits that would slow the stream down.
 */
int save_migrate_configure(
	struct save_migrate *migrate, bool background, struct rouse_error *error);
/** Puts back what was changed. What cannot be is logged. */
void save_migrate_restore(struct save_migrate *migrate);

/** Starts the migration into @fd, which stays the caller's. */
int save_migrate_start(struct save_migrate *migrate, int fd, struct rouse_error *error);

/** Its state; for FAILED @error gets QEMU's words. */
int save_migrate_query(
	struct save_migrate *migrate, enum save_migration_state *state, struct rouse_error *error);

/** Waits until it is over, at most @timeout_ms. -EREMOTEIO if it failed, -ETIMEDOUT. */
int save_migrate_wait(
	struct save_migrate *migrate, unsigned int timeout_ms, struct rouse_error *error);

/**
 * Ends it if it runs, and waits for that. One that must not break off is waited for instead: its
 * stream must be read meanwhile.
 */
void save_migrate_cancel(struct save_migrate *migrate);

#endif
