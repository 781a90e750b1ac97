/* SPDX-License-Identifier: MIT */
/*
 * The value of QEMU's option -object, which has two forms:
 *
 *   TYPE,id=NAME,PROPERTY=VALUE,...            a comma in a value is written twice
 *   {"qom-type": TYPE, "id": NAME, ...}        JSON
 */
#ifndef ROUSE_VMM_QEMU_OBJECT_H
#define ROUSE_VMM_QEMU_OBJECT_H

#include <rouse.h>

/** More than the longest path with its name, and the zero. */
#define QEMU_OBJECT_WORD 4352

/**
 * Takes the first "NAME=VALUE" or "VALUE" off a list of the first form, with its commas written
 * once; what does not fit into @word is left out. Returns what is behind it.
 */
const char *qemu_object_word(const char *text, char word[QEMU_OBJECT_WORD]);

/** Called with a property; the type is that of the name "qom-type". */
typedef void qemu_object_property_fn(void *user, const char *name, const char *value);

/** Calls @property for each property of either form. What is neither has none. */
void qemu_object_read(const char *text, qemu_object_property_fn *property, void *user);

/** @value with each comma twice. The caller's; NULL: no memory. */
char *qemu_object_escape(const char *value);

#endif
