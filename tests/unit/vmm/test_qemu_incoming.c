/* SPDX-License-Identifier: MIT */
/* What a QEMU that waits for a VM is asked and told before it gets one. */
#include "vmm/qemu_incoming.h"

#include "fake_monitor.h"

#define OFF(name) "{\"capability\": \"" name "\", \"state\": false}"
#define ON(name) "{\"capability\": \"" name "\", \"state\": true}"

/* Prepares a QEMU with these capabilities; *set: how often one was set. */
static int prepare(
	const char *capabilities, bool postcopy, unsigned int *set, struct rouse_error *error)
{
	struct fake_answer answers[] = {
		{.command = "query-migrate-capabilities", .result = capabilities},
		{.command = "migrate-set-capabilities", .result = "{}"},
		{0},
	};
	struct fake_monitor monitor;
	int code;

	fake_monitor_open(&monitor, answers);
	code = qemu_incoming_prepare(monitor.qmp, postcopy, error);
	fake_monitor_close(&monitor);
	*set = answers[1].asked;
	return code;
}

static void expect_refused(const char *capabilities, const char *names)
{
	for (int postcopy = 0; postcopy < 2; postcopy++) {
		struct rouse_error error = {0};
		unsigned int set;

		assert_int_equal(prepare(capabilities, postcopy == 1, &set, &error), -EINVAL);
		assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
		if (strstr(error.message, names) == NULL)
			fail_msg("not '%s': %s", names, error.message);
		assert_non_null(strstr(error.message, "migrate-set-capabilities"));
		assert_int_equal(set, 0);
	}
}

static void a_qemu_that_would_wait_for_more_connections_is_refused(void **state)
{
	(void)state;
	expect_refused("[" OFF("xbzrle") ", " ON("multifd") "]", " multifd off");
	expect_refused("[" ON("postcopy-ram") ", " ON("postcopy-preempt") ", " OFF("multifd") "]",
		" postcopy-preempt off");
	expect_refused("[" ON("multifd") ", " ON("postcopy-ram") ", " ON("postcopy-preempt") "]",
		" multifd and postcopy-preempt off");
}

static void what_is_on_and_does_no_harm_is_left_alone(void **state)
{
	const char *const capabilities = "[" ON("postcopy-ram") ", " ON("xbzrle") ", " OFF(
		"multifd") ", " OFF("postcopy-preempt") "]";
	struct rouse_error error = {0};
	unsigned int set;

	(void)state;
	assert_int_equal(prepare(capabilities, false, &set, &error), 0);
	assert_int_equal(set, 1);
	assert_int_equal(prepare(capabilities, true, &set, &error), 0);
	assert_int_equal(set, 3);
}

/* Loads a VM into a QEMU that says this and knows no command. */
static int load(const char *said, bool run, uint64_t *started_ns)
{
	struct fake_monitor monitor;
	int code;

	fake_monitor_open(&monitor, NULL);
	assert_int_equal(send(monitor.fd, said, strlen(said), MSG_NOSIGNAL), strlen(said));
	code = qemu_incoming_wait_loaded(monitor.qmp, run, started_ns, NULL);
	fake_monitor_close(&monitor);
	return code;
}

#define COMPLETED "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\n"
#define RESUME "{\"event\": \"RESUME\"}\n"

static void a_vm_that_is_not_let_run_has_not_started(void **state)
{
	uint64_t started_ns = 0;

	(void)state;
	assert_true(load(COMPLETED, true, &started_ns) < 0);
	assert_int_equal(started_ns, 0);
	assert_true(load(COMPLETED, false, &started_ns) < 0);
	assert_int_equal(started_ns, 0);
}

static void a_vm_that_ran_has_started_whatever_fails_then(void **state)
{
	uint64_t started_ns = 0;

	(void)state;
	assert_true(load(RESUME COMPLETED, false, &started_ns) < 0);
	assert_int_not_equal(started_ns, 0);
	started_ns = 0;
	assert_int_equal(load(RESUME COMPLETED, true, &started_ns), 0);
	assert_int_not_equal(started_ns, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_qemu_that_would_wait_for_more_connections_is_refused),
		cmocka_unit_test(what_is_on_and_does_no_harm_is_left_alone),
		cmocka_unit_test(a_vm_that_is_not_let_run_has_not_started),
		cmocka_unit_test(a_vm_that_ran_has_started_whatever_fails_then),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
