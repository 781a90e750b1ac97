/* SPDX-License-Identifier: MIT */
/*
 * QEMU's translator (TCG) reads the guest's code once and runs the translation from then on:
 * whoever watches the memory of a running guest does not see the pages that hold only code, though
 * a restored guest, with nothing translated, needs them. QEMU translates anew what it had
 * translated under other settings, and of those one does nothing else: `log nochain`, a command of
 * the human monitor (7.2 to 10), which keeps translations from being chained to each other.
 *
 * While it is set the guest runs slower (its requests took 1.5 to 1.9 times as long); if we are
 * killed then, until the next qemu_tcg_end() or a `log none` of the user. QEMU keeps the
 * translations of both settings, so that it helps once in QEMU's life. docs/estimators.md has
 * figures.
 */
#ifndef ROUSE_VMM_QEMU_TCG_H
#define ROUSE_VMM_QEMU_TCG_H

#include "vmm/qmp.h"

/** From qemu_tcg_begin() to qemu_tcg_end(). All zero: not set. */
struct qemu_tcg {
	struct qmp *qmp; /**< not NULL: to be put back by it */
};

/**
 * Makes a QEMU that translates read its guest's code again, from now on: to be called when its
 * memory is being watched. Does nothing, and is silent, where the
 * processor runs the guest's code itself (KVM); does nothing and says so where QEMU was started
 * with -d: the command would undo that. What fails is logged and costs nothing else, but up to five
 * seconds of a QEMU that does not answer. @qmp stays the
 * caller's, and must outlive qemu_tcg_end(), which is due in any case. Whether it was done.
 */
bool qemu_tcg_begin(struct qemu_tcg *tcg, struct qmp *qmp, const struct rouse_observer *observer);
/**
 * Puts the settings back, also if the observer's cancel object was fired; it ends other commands of
 * @qmp as before. Fine to call twice, and after a begin that did nothing.
 */
void qemu_tcg_end(struct qemu_tcg *tcg, const struct rouse_observer *observer);
/**
 * The same after half a second, in which the guest runs: for a scan, which goes on for long and
 * shall cost little. Code that does not run in that time is not read. It comes back earlier if the
 * observer's cancel object is fired.
 */
void qemu_tcg_end_soon(struct qemu_tcg *tcg, const struct rouse_observer *observer);
/**
 * Whether the arguments of a QEMU ask it to log (-d): @size bytes, a NUL after each argument, as
 * /proc/PID/cmdline has them. Pure.
 */
bool qemu_tcg_is_logging(const char *arguments, size_t size);

#endif
