/* SPDX-License-Identifier: MIT */
/* What every unit test includes: cmocka wants these headers before its own. */
#ifndef ROUSE_TESTS_UNIT_H
#define ROUSE_TESTS_UNIT_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#endif
