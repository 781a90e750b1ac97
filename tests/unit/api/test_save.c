/* SPDX-License-Identifier: MIT */
/*
 * rouse_save() against a fake QEMU: a process behind a monitor's socket that sends a real stream,
 * cut small, and then does at one certain moment what a real one does once in a thousand saves.
 */
#include "base/cleanup.h"
#include "base/io.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <rouse.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#define STREAM "fuzz/corpus/qemu_stream/pc7.bin"
#define GREETING                                                                            \
	"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, " \
	"\"capabilities\": []}}\n"
#define ROOM 4096

static char directory[] = "/tmp/rouse-test-XXXXXX";
static char image_path[64], socket_path[64];

struct fake {
	/* What it does. */
	size_t withheld;     /* bytes that are missing at the stream's end */
	const char *dies_at; /* the command after `migrate` that it does not live to answer */
	/* The command after `migrate`, the how many-eth, at which it only closes its connection. */
	const char *closes_at;
	unsigned int closes_time;
	unsigned int ends_ms;  /* after that, without taking another connection; 0: it takes one */
	const char *migration; /* the state in which the migration ends */
	unsigned int refusals; /* of `cont`, before the migration is over */
	/* The how many-eth query-status after `migrate` is preceded by another monitor's `cont`. */
	unsigned int cont_before;
	bool stop_behind; /* and by its `stop` then */
	/* In a background snapshot: whether it lets the VM run, and another stops it then. */
	bool background, resumes, another_stops;

	/* What was seen. */
	struct seen *seen;
	unsigned int conts, quits;
	unsigned int errors, warnings; /* that Rouse logged */

	int listener, fd, stream_fd;
	bool migrated;
	unsigned int asked; /* for the run state, since then */
	const char *status; /* the run state */
	pid_t process;
};

/* What the fake tells us. */
struct seen {
	unsigned int conts, quits;
};

static int make_directory(void **state)
{
	(void)state;
	if (mkdtemp(directory) == NULL)
		return -1;
	(void)snprintf(image_path, sizeof(image_path), "%s/image", directory);
	(void)snprintf(socket_path, sizeof(socket_path), "%s/qmp", directory);
	return 0;
}

static int remove_directory(void **state)
{
	(void)state;
	return rmdir(directory);
}

/* ---- The fake ---- */

/* Reads one line, and the descriptor that came with it, if any. */
static bool fake_read_line(struct fake *fake, char *line, size_t room)
{
	size_t used = 0;

	while (used + 1 < room) {
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(int))];
		} control;
		struct iovec piece = {.iov_base = line + used, .iov_len = 1};
		struct msghdr message = {.msg_iov = &piece,
			.msg_iovlen = 1,
			.msg_control = &control,
			.msg_controllen = sizeof(control)};

		if (recvmsg(fake->fd, &message, MSG_CMSG_CLOEXEC) <= 0)
			return false;
		if (message.msg_controllen > 0)
			memcpy(&fake->stream_fd, CMSG_DATA(&control.header), sizeof(int));
		if (line[used++] == '\n')
			break;
	}
	line[used] = '\0';
	return true;
}

static void fake_send(const struct fake *fake, json_t *message)
{
	cleanup_free char *text = json_dumps(message, JSON_COMPACT);

	(void)!send(fake->fd, text, strlen(text), MSG_NOSIGNAL);
	(void)!send(fake->fd, "\n", 1, MSG_NOSIGNAL);
	json_decref(message);
}

static void fake_send_stream(struct fake *fake)
{
	cleanup_free char *data = NULL;
	size_t size;

	if (rouse_io_read_file(STREAM, 1u << 20, &data, &size) == 0)
		(void)rouse_io_write(fake->stream_fd, data, size - fake->withheld);
	(void)close(take_fd(&fake->stream_fd));
	fake->migrated = true;
	if (!fake->background)
		fake->status = fake->refusals > 0 ? "finish-migrate" : "postmigrate";
}

static void fake_send_event(const struct fake *fake, const char *name)
{
	fake_send(fake, json_pack("{s:s, s:{s:i, s:i}}", "event", name, "timestamp", "seconds", 1,
				"microseconds", 2));
}

/* A background snapshot begins: QEMU stops the VM and, with luck, lets it run. */
static void fake_begin_background(struct fake *fake)
{
	fake_send_event(fake, "STOP");
	if (fake->resumes)
		fake_send_event(fake, "RESUME");
	if (fake->resumes && fake->another_stops)
		fake_send_event(fake, "STOP");
	fake->status = fake->resumes && !fake->another_stops ? "running" : "paused";
}

static json_t *fake_status(struct fake *fake)
{
	if (fake->migrated && ++fake->asked == fake->cont_before) {
		fake_send_event(fake, "RESUME");
		fake->status = "running";
		if (fake->stop_behind) {
			fake_send_event(fake, "STOP");
			fake->status = "paused";
		}
	}
	return json_pack("{s:s, s:b}", "status", fake->status, "running",
		strcmp(fake->status, "running") == 0);
}

/* `cont`, while a migration ends: refused so many times. */
static bool fake_refuses(struct fake *fake, const char *command)
{
	if (strcmp(command, "cont") != 0 || strcmp(fake->status, "finish-migrate") != 0)
		return false;
	if (--fake->refusals == 0)
		fake->status = "postmigrate";
	return true;
}

/* The answer to a command. */
static json_t *fake_obey(struct fake *fake, const char *command)
{
	if (strcmp(command, "query-status") == 0)
		return fake_status(fake);
	if (strcmp(command, "query-migrate") == 0 && fake->migrated)
		return json_pack("{s:s}", "status", fake->migration);
	if (strcmp(command, "query-memory-size-summary") == 0)
		return json_pack("{s:i}", "base-memory", 128 << 20);
	if (strcmp(command, "query-migrate-parameters") == 0)
		return json_pack("{s:i, s:i}", "max-bandwidth", 1 << 20, "downtime-limit", 300);
	if (strcmp(command, "query-cpus-fast") == 0)
		return json_pack("[{}]");
	if (strcmp(command, "query-block") == 0 ||
		strcmp(command, "query-migrate-capabilities") == 0)
		return json_array();
	if (strcmp(command, "cont") == 0) {
		fake->seen->conts++;
		fake->status = "running";
	}
	fake->seen->quits += strcmp(command, "quit") == 0;
	return json_object();
}

/* False: it ends. */
static bool fake_serve(struct fake *fake, const json_t *message)
{
	const char *command = json_string_value(json_object_get(message, "execute"));
	json_t *id = json_object_get(message, "id");

	if (command == NULL ||
		(fake->migrated && fake->dies_at != NULL && strcmp(command, fake->dies_at) == 0))
		return false;
	/* Somebody stopped it for a moment, before it was saved: that does not matter. */
	if (strcmp(command, "query-cpus-fast") == 0) {
		fake_send_event(fake, "STOP");
		fake_send_event(fake, "RESUME");
	}
	if (fake_refuses(fake, command))
		fake_send(fake, json_pack("{s:{s:s, s:s}, s:O}", "error", "class", "GenericError",
					"desc", "Migration is not finalized yet", "id", id));
	else
		fake_send(fake,
			json_pack("{s:o, s:O}", "return", fake_obey(fake, command), "id", id));
	if (strcmp(command, "migrate") == 0) {
		if (fake->background)
			fake_begin_background(fake);
		fake_send_stream(fake);
	}
	return fake->seen->quits == 0;
}

/* Whether it closes the connection in place of an answer. */
static bool fake_hangs_up(struct fake *fake, const json_t *message)
{
	const char *command = json_string_value(json_object_get(message, "execute"));

	return fake->migrated && fake->closes_at != NULL && command != NULL &&
	       strcmp(command, fake->closes_at) == 0 && --fake->closes_time == 0;
}

/* One connection. False: it has ended. */
static bool fake_talk(struct fake *fake)
{
	bool goes_on = true, hangs_up = false;
	char line[ROOM];

	fake->fd = accept4(fake->listener, NULL, NULL, SOCK_CLOEXEC);
	(void)!send(fake->fd, GREETING, strlen(GREETING), MSG_NOSIGNAL);
	while (goes_on && !hangs_up && fake_read_line(fake, line, sizeof(line))) {
		json_t *message = json_loads(line, 0, NULL);

		hangs_up = fake_hangs_up(fake, message);
		goes_on = hangs_up || fake_serve(fake, message);
		json_decref(message);
	}
	(void)close(fake->fd);
	return hangs_up;
}

static _Noreturn void fake_run(struct fake *fake)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fake->listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
		listen(fake->listener, 1) < 0)
		_exit(1);
	while (fake_talk(fake) && fake->ends_ms == 0)
		;
	(void)poll(NULL, 0, (int)fake->ends_ms);
	_exit(0);
}

/* As a process: Rouse sees whether that ends, or only closes its connection. */
static void fake_start(struct fake *fake)
{
	if (fake->migration == NULL)
		fake->migration = "completed";
	fake->status = "running";
	fake->stream_fd = -1;
	fake->seen = mmap(NULL, sizeof(*fake->seen), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(fake->seen, MAP_FAILED);
	fake->process = fork();
	assert_int_not_equal(fake->process, -1);
	if (fake->process == 0)
		fake_run(fake);
}

static void fake_stop(struct fake *fake)
{
	/* It may wait for somebody to connect again. What it has answered it has counted. */
	(void)kill(fake->process, SIGKILL);
	assert_int_equal(waitpid(fake->process, NULL, 0), fake->process);
	fake->conts = fake->seen->conts;
	fake->quits = fake->seen->quits;
	(void)munmap(fake->seen, sizeof(*fake->seen));
	(void)unlink(socket_path);
}

static void note_log(void *user, enum rouse_log_level level, const char *message)
{
	struct fake *fake = user;

	print_message("%s\n", message);
	fake->errors += level == ROUSE_LOG_ERROR;
	fake->warnings += level == ROUSE_LOG_WARNING;
}

/* Saves: plainly, unless it is to be a background snapshot. */
static int save(struct fake *fake, bool keep_running, struct rouse_error *error)
{
	const struct rouse_observer observer = {.user = fake, .log = note_log};
	struct rouse_save_options options;
	int code;

	rouse_save_options_init(&options);
	options.qmp_socket = socket_path;
	options.image = image_path;
	options.keep_running = keep_running;
	options.no_background_snapshot = !fake->background;
	*error = (struct rouse_error){0};
	fake_start(fake);
	code = rouse_save(&options, NULL, &observer, error);
	fake_stop(fake);
	print_message("%d %s\n", code, error->message);
	return code;
}

/* The image is there and whole. It is removed. */
static void assert_good_image(void)
{
	struct rouse_image *image;

	assert_int_equal(rouse_image_open(image_path, &image, NULL), 0);
	assert_int_equal(rouse_image_verify(image, NULL, NULL, NULL, NULL), 0);
	rouse_image_close(image);
	assert_int_equal(unlink(image_path), 0);
}

static void assert_no_image(void)
{
	assert_int_equal(access(image_path, F_OK), -1);
	assert_int_equal(errno, ENOENT);
}

/* ---- Tests ---- */

static void a_suspended_vm_is_saved_and_ended(void **state)
{
	struct fake fake = {0};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), 0);
	assert_int_equal(fake.quits, 1);
	assert_int_equal(fake.conts + fake.warnings + fake.errors, 0);
	assert_good_image();
}

static void a_kept_vm_is_saved_and_goes_on(void **state)
{
	struct fake fake = {0};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), 0);
	assert_int_equal(fake.conts, 1);
	assert_int_equal(fake.quits + fake.warnings + fake.errors, 0);
	assert_good_image();
}

static void an_image_is_finished_though_qemu_ends_after_its_last_byte(void **state)
{
	struct fake fake;
	struct rouse_error error;

	(void)state;
	for (int keep_running = 0; keep_running < 2; keep_running++) {
		fake = (struct fake){.dies_at = "query-migrate"};
		assert_int_equal(save(&fake, keep_running, &error), 0);
		assert_int_equal(fake.warnings, 1);
		assert_good_image();
	}
}

static void an_image_is_finished_though_qemu_ends_when_the_vm_is_to_go_on(void **state)
{
	struct fake fake = {.dies_at = "cont"};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), 0);
	assert_int_equal(fake.warnings, 1);
	assert_good_image();
}

static void a_qemu_that_ends_before_its_last_byte_leaves_no_image(void **state)
{
	struct fake fake;
	struct rouse_error error;

	(void)state;
	for (int keep_running = 0; keep_running < 2; keep_running++) {
		fake = (struct fake){.dies_at = "query-migrate", .withheld = 10000};
		assert_int_equal(save(&fake, keep_running, &error), -EPIPE);
		assert_int_equal(error.kind, ROUSE_ERROR_VMM);
		assert_no_image();
	}
}

static void a_vm_that_runs_again_is_neither_saved_nor_ended(void **state)
{
	struct fake fake = {.cont_before = 1};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_int_equal(fake.quits + fake.conts, 0);
	assert_no_image();
}

static void a_vm_that_ran_again_and_was_stopped_is_neither_saved_nor_ended(void **state)
{
	struct fake fake = {.cont_before = 1, .stop_behind = true};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), -EBUSY);
	assert_int_equal(fake.quits, 0);
	assert_int_equal(fake.conts, 1); /* it ran before */
	assert_no_image();
}

static void a_vm_that_runs_again_when_its_image_is_complete_is_not_ended(void **state)
{
	struct fake fake = {.cont_before = 2};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), -EBUSY);
	assert_int_equal(error.kind, ROUSE_ERROR_REFUSED);
	assert_non_null(strstr(error.message, image_path));
	assert_int_equal(fake.quits + fake.conts, 0);
	assert_good_image();
}

static void a_vm_goes_on_though_its_migration_that_failed_is_not_over_yet(void **state)
{
	struct fake fake = {.migration = "failed", .withheld = 10000, .refusals = 3};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), -EREMOTEIO);
	assert_int_equal(fake.conts, 1);
	assert_int_equal(fake.errors + fake.warnings, 0);
	assert_no_image();
}

static void a_vm_goes_on_though_its_migration_that_succeeded_is_not_over_yet(void **state)
{
	struct fake fake = {.refusals = 1};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), 0);
	assert_int_equal(fake.conts, 1);
	assert_good_image();
}

static void a_vm_goes_on_though_its_connection_closes(void **state)
{
	struct fake fake;
	struct rouse_error error;

	(void)state;
	for (int keep_running = 0; keep_running < 2; keep_running++) {
		fake = (struct fake){.closes_at = "query-migrate", .closes_time = 1};
		assert_int_equal(save(&fake, keep_running, &error), -EPIPE);
		assert_int_equal(error.kind, ROUSE_ERROR_VMM);
		assert_non_null(strstr(error.message, "lives"));
		assert_int_equal(fake.conts, 1);
		assert_int_equal(fake.quits + fake.warnings + fake.errors, 0);
		assert_no_image();
	}
}

static void a_vm_goes_on_though_its_connection_closes_while_it_is_packed(void **state)
{
	struct fake fake = {.closes_at = "query-status", .closes_time = 1};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), -EPIPE);
	assert_int_equal(fake.conts, 1);
	assert_int_equal(fake.quits, 0);
	assert_no_image();
}

static void an_image_is_not_taken_for_the_end_if_the_connection_closes_behind_it(void **state)
{
	struct fake fake = {.closes_at = "query-status", .closes_time = 2};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), -EPIPE);
	assert_non_null(strstr(error.message, image_path));
	assert_int_equal(fake.conts, 1);
	assert_int_equal(fake.quits, 0);
	assert_good_image();
}

/* Its connections are closed before its memory is given back: what it sent is all there is. */
static void a_qemu_that_takes_long_to_end_leaves_a_good_image(void **state)
{
	struct fake fake = {.closes_at = "query-migrate", .closes_time = 1, .ends_ms = 5500};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, false, &error), 0);
	assert_int_equal(fake.warnings, 1);
	assert_int_equal(fake.conts + fake.quits + fake.errors, 0);
	assert_good_image();
}

static void a_vm_that_another_stops_in_a_background_snapshot_stays_so(void **state)
{
	struct fake fake = {.background = true, .resumes = true, .another_stops = true};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), 0);
	assert_int_equal(fake.conts + fake.errors, 0);
	assert_int_equal(fake.warnings, 1);
	assert_good_image();
}

static void a_vm_that_another_stops_stays_so_when_its_save_fails(void **state)
{
	struct fake fake = {.background = true,
		.resumes = true,
		.another_stops = true,
		.migration = "failed",
		.withheld = 10000};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), -EREMOTEIO);
	assert_int_equal(fake.conts + fake.errors, 0);
	assert_int_equal(fake.warnings, 1);
	assert_no_image();
}

static void a_vm_goes_on_that_qemu_stopped_for_a_background_snapshot_which_failed(void **state)
{
	struct fake fake = {.background = true, .migration = "failed", .withheld = 10000};
	struct rouse_error error;

	(void)state;
	assert_int_equal(save(&fake, true, &error), -EREMOTEIO);
	assert_int_equal(fake.conts, 1);
	assert_int_equal(fake.errors + fake.warnings, 0);
	assert_no_image();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_suspended_vm_is_saved_and_ended),
		cmocka_unit_test(a_kept_vm_is_saved_and_goes_on),
		cmocka_unit_test(an_image_is_finished_though_qemu_ends_after_its_last_byte),
		cmocka_unit_test(an_image_is_finished_though_qemu_ends_when_the_vm_is_to_go_on),
		cmocka_unit_test(a_qemu_that_ends_before_its_last_byte_leaves_no_image),
		cmocka_unit_test(a_vm_that_runs_again_is_neither_saved_nor_ended),
		cmocka_unit_test(a_vm_that_ran_again_and_was_stopped_is_neither_saved_nor_ended),
		cmocka_unit_test(a_vm_that_runs_again_when_its_image_is_complete_is_not_ended),
		cmocka_unit_test(a_vm_goes_on_though_its_migration_that_failed_is_not_over_yet),
		cmocka_unit_test(a_vm_goes_on_though_its_migration_that_succeeded_is_not_over_yet),
		cmocka_unit_test(a_vm_goes_on_though_its_connection_closes),
		cmocka_unit_test(a_vm_goes_on_though_its_connection_closes_while_it_is_packed),
		cmocka_unit_test(
			an_image_is_not_taken_for_the_end_if_the_connection_closes_behind_it),
		cmocka_unit_test(a_qemu_that_takes_long_to_end_leaves_a_good_image),
		cmocka_unit_test(a_vm_that_another_stops_in_a_background_snapshot_stays_so),
		cmocka_unit_test(a_vm_that_another_stops_stays_so_when_its_save_fails),
		cmocka_unit_test(
			a_vm_goes_on_that_qemu_stopped_for_a_background_snapshot_which_failed),
	};

	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
