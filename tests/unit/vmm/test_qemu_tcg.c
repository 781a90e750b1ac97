/* SPDX-License-Identifier: MIT */
/* Whether a QEMU was started to log. */
#include "vmm/qemu_tcg.h"

#include "../unit.h"

#include "base/clock.h"

#include <sys/socket.h>
#include <unistd.h>

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

/* As a stopped QEMU whose socket still takes everything. */
static void qemu_that_does_not_answer_costs_seconds_once(void **state)
{
	static const char hello[] = "{\"QMP\": {}}\n{\"return\": {}, \"id\": 1}\n";
	struct qemu_tcg tcg;
	struct qmp *qmp;
	uint64_t before;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(write(fds[1], hello, sizeof(hello) - 1), sizeof(hello) - 1);
	assert_int_equal(qmp_attach(fds[0], 1000, NULL, &qmp, NULL), 0);
	before = rouse_clock_ns();
	assert_false(qemu_tcg_begin(&tcg, qmp, NULL));
	qemu_tcg_end(&tcg, NULL);
	assert_true(rouse_clock_ns() - before < UINT64_C(20000000000));
	qmp_close(qmp);
	(void)close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_option_d_with_one_dash_or_two_is_seen),
		cmocka_unit_test(other_words_are_not),
		cmocka_unit_test(qemu_that_does_not_answer_costs_seconds_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
