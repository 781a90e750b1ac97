/* SPDX-License-Identifier: MIT */
#ifndef ROUSE_API_DOCTOR_KVM_H
#define ROUSE_API_DOCTOR_KVM_H

#include <stdbool.h>
#include <stddef.h>

/**
 * Runs a few instructions under KVM, and boots @kernel with @qemu if it is not NULL. True: that
 * works. @detail says what was tried and what came of it; *cure, a literal, what would help.
 */
bool rouse_probe_kvm(
	const char *qemu, const char *kernel, char *detail, size_t room, const char **cure);

#endif
