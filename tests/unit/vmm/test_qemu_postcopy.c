/* SPDX-License-Identifier: MIT */
/* The postcopy sink: who lets a VM run. */
#include "../unit.h"

#include "base/error.h"
#include "fake_qemu.h"
#include "vmm/qemu_autostart.h"

#define IS_OFF(text) qemu_autostart_is_off(text, sizeof(text))
#define NOBODY 0x7ffffff0 /* no process: how it was started cannot be seen */

static void an_option_S_with_one_dash_or_two_is_seen(void **state)
{
	(void)state;
	assert_true(IS_OFF("qemu\0-m\0001G\0-S\0-nodefaults"));
	assert_true(IS_OFF("qemu\0--S"));
	assert_true(qemu_autostart_is_off("qemu\0-S", 7));
}

static void words_that_are_not_S_keep_no_vm_from_running(void **state)
{
	(void)state;
	assert_false(IS_OFF("qemu\0-s\0-Sx\0-serial\0none"));
	assert_false(IS_OFF("qemu\0S\0x-S\0-"));
	assert_false(qemu_autostart_is_off("", 0));
}

/* A fault thread: what is missing is zero. */
static void *serve_faults(void *argument)
{
	struct rouse_sink *sink = argument;
	struct rouse_sink_page page = {0};

	while (sink->ops->wait_fault(sink, &page.page) == 0)
		(void)sink->ops->place(sink, &page, 1, ROUSE_SINK_URGENT, NULL);
	return NULL;
}

/* ---- The start ------------------------------------------------------------------------------- */

/* Starts a VM in a QEMU of process @pid. */
static void start_vm(struct fake_qemu *fake, pid_t pid, bool run)
{
	struct qemu_sink_config config = {.pid = pid, .run = run};
	struct rouse_error error = {0};
	struct rouse_sink *sink = NULL;
	uint64_t started_ns = 0;
	pthread_t faults;

	assert_int_equal(fake_start(fake, false, &config), 0);
	assert_int_equal(qemu_postcopy_sink_new(&config, &sink, &error), 0);
	assert_int_equal(pthread_create(&faults, NULL, serve_faults, sink), 0);
	if (sink->ops->start(sink, &started_ns, &error) < 0)
		fail_msg("%s", error.message);
	assert_int_not_equal(started_ns, 0);
	sink->ops->interrupt(sink);
	(void)pthread_join(faults, NULL);
	sink->ops->destroy(sink);
	fake_stop(fake, config.qmp);
	assert_int_equal(atomic_load(&fake->devices_seen), strlen(FAKE_DEVICES));
}

static void a_vm_that_might_not_run_by_itself_is_let_run_before_its_devices_are_sent(void **state)
{
	struct fake_qemu fake = {.state = "running"};

	(void)state;
	start_vm(&fake, NOBODY, true);
	assert_int_equal(atomic_load(&fake.conts), 1);
	assert_int_equal(fake.devices_at_cont, 0);
}

static void a_vm_that_runs_by_itself_is_not_asked_to(void **state)
{
	struct fake_qemu fake = {.state = "running"};

	(void)state;
	/* We stand for a QEMU that was started without -S. */
	start_vm(&fake, getpid(), true);
	assert_int_equal(atomic_load(&fake.conts), 0);
}

static void a_vm_that_is_to_stay_paused_is_never_let_run(void **state)
{
	struct fake_qemu fake = {.state = "paused"};

	(void)state;
	start_vm(&fake, NOBODY, false);
	assert_int_equal(atomic_load(&fake.conts), 0);
}

static void a_qemu_that_cannot_let_it_run_yet_gets_the_devices_all_the_same(void **state)
{
	struct fake_qemu fake = {.state = "running", .refuses_cont = true};

	(void)state;
	start_vm(&fake, NOBODY, true);
	assert_int_equal(atomic_load(&fake.conts), 1);
}

/* ---- Taking over ----------------------------------------------------------------------------- */

static void note_warning(void *user, enum rouse_log_level level, const char *message)
{
	unsigned int *warnings = user;

	if (level == ROUSE_LOG_WARNING && strstr(message, "cont") != NULL)
		(*warnings)++;
}

/* Takes over a VM, of which one page is missing, and ends its restore. */
static int take_over(struct fake_qemu *fake, bool run, unsigned int *warnings)
{
	const struct rouse_observer observer = {.user = warnings, .log = note_warning};
	struct qemu_sink_config config = {.run = run, .observer = &observer};
	struct rouse_sink *sink = NULL;
	pthread_t faults;
	int code;

	assert_int_equal(fake_start(fake, true, &config), 0);
	assert_int_equal(qemu_postcopy_sink_resume(&config, &sink, NULL), 0);
	assert_int_equal(pthread_create(&faults, NULL, serve_faults, sink), 0);
	code = sink->ops->finish(sink, NULL);
	sink->ops->interrupt(sink);
	(void)pthread_join(faults, NULL);
	sink->ops->destroy(sink);
	fake_stop(fake, config.qmp);
	return code;
}

static void a_vm_that_is_taken_over_paused_stays_so_and_that_is_told(void **state)
{
	static const char *const states[] = {"paused", "prelaunch"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct fake_qemu fake = {.state = states[i]};
		unsigned int warnings = 0;

		assert_int_equal(take_over(&fake, true, &warnings), 0);
		assert_true(fake.ended);
		assert_int_equal(atomic_load(&fake.conts), 0);
		assert_int_equal(warnings, 1);
	}
}

static void nothing_is_told_of_a_vm_that_is_as_it_should_be(void **state)
{
	struct fake_qemu running = {.state = "running"}, paused = {.state = "paused"};
	unsigned int warnings = 0;

	(void)state;
	assert_int_equal(take_over(&running, true, &warnings), 0);
	assert_int_equal(take_over(&paused, false, &warnings), 0);
	assert_int_equal(warnings, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_option_S_with_one_dash_or_two_is_seen),
		cmocka_unit_test(words_that_are_not_S_keep_no_vm_from_running),
		cmocka_unit_test(
			a_vm_that_might_not_run_by_itself_is_let_run_before_its_devices_are_sent),
		cmocka_unit_test(a_vm_that_runs_by_itself_is_not_asked_to),
		cmocka_unit_test(a_vm_that_is_to_stay_paused_is_never_let_run),
		cmocka_unit_test(a_qemu_that_cannot_let_it_run_yet_gets_the_devices_all_the_same),
		cmocka_unit_test(a_vm_that_is_taken_over_paused_stays_so_and_that_is_told),
		cmocka_unit_test(nothing_is_told_of_a_vm_that_is_as_it_should_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
