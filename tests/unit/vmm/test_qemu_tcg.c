/* SPDX-License-Identifier: MIT */
/* Whether a QEMU was started to log. */
#include "vmm/qemu_tcg.h"

#include "../unit.h"

#define IS_LOGGING(text) qemu_tcg_is_logging(text, sizeof(text))

static void an_option_d_with_one_dash_or_two_is_seen(void **state)
{
	(void)state;
	assert_true(IS_LOGGING("qemu\0-m\0001G\0-d\0int"));
	assert_true(IS_LOGGING("qemu\0--d\0int"));
	assert_true(qemu_tcg_is_logging("qemu\0-d", 7));
}

static void other_words_are_not(void **state)
{
	(void)state;
	assert_false(IS_LOGGING("qemu\0-display\0none\0-D\0file\0-daemonize"));
	assert_false(IS_LOGGING("qemu\0x-d\0-"));
	assert_false(IS_LOGGING("qemu\0-dx"));
	assert_false(qemu_tcg_is_logging("", 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_option_d_with_one_dash_or_two_is_seen),
		cmocka_unit_test(other_words_are_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
