/* SPDX-License-Identifier: MIT */
/*
 * The QMP client against a fake monitor: a thread at the other end of a socket pair that follows a
 * script. What a real QEMU does is for the end-to-end tests.
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"
#include "vmm/qmp.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#define GREETING "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}, "
#define GREETING_PLAIN GREETING "\"capabilities\": []}}\r\n"
#define GREETING_OOB GREETING "\"capabilities\": [\"oob\"]}}\r\n"
#define STOP_EVENT "{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n"

/* One step of the script: wait for a line that contains `expect`, then say `say` with ID put in. */
struct step {
	const char *expect, *say;
	bool cancel; /* fires the fake's cancel object before it says it */
};

struct fake {
	const char *greeting;
	struct step steps[6];
	int fd;
	int got_fd;
	const char *unexpected;
	struct rouse_cancel *cancel;
	pthread_t thread;
};

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
			memcpy(&fake->got_fd, CMSG_DATA(&control.header), sizeof(int));
		if (line[used++] == '\n')
			break;
	}
	line[used] = '\0';
	return true;
}

static void fake_say(const struct fake *fake, const char *text, long long id)
{
	char line[1024];
	const char *mark = strstr(text, "ID");
	int size = mark == NULL ? snprintf(line, sizeof(line), "%s", text)
				: snprintf(line, sizeof(line), "%.*s%lld%s", (int)(mark - text),
					  text, id, mark + 2);

	(void)!send(fake->fd, line, (size_t)size, MSG_NOSIGNAL);
}

static void *fake_run(void *argument)
{
	struct fake *fake = argument;
	char line[1024];

	fake_say(fake, fake->greeting, 0);
	for (size_t i = 0; i < 6 && fake->steps[i].expect != NULL; i++) {
		json_t *command;

		if (!fake_read_line(fake, line, sizeof(line)))
			break;
		if (strstr(line, fake->steps[i].expect) == NULL)
			fake->unexpected = fake->steps[i].expect;
		if (fake->steps[i].cancel)
			rouse_cancel_fire(fake->cancel);
		command = json_loads(line, 0, NULL);
		fake_say(fake, fake->steps[i].say,
			json_integer_value(json_object_get(command, "id")));
		json_decref(command);
	}
	(void)shutdown(fake->fd, SHUT_WR);
	/* The client hangs up first, so that nothing that it sends meets a closed socket. */
	while (fake_read_line(fake, line, sizeof(line)))
		;
	return NULL;
}

#define OK "{\"return\": {}, \"id\": ID}\r\n"
#define HELLO                          \
	{                              \
		"qmp_capabilities", OK \
	}

static struct qmp *fake_start(struct fake *fake, const struct rouse_observer *observer)
{
	struct qmp *qmp = NULL;
	int fds[2];

	fake->got_fd = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fake->fd = fds[1];
	assert_int_equal(pthread_create(&fake->thread, NULL, fake_run, fake), 0);
	assert_int_equal(qmp_attach(fds[0], 5000, observer, &qmp, NULL), 0);
	return qmp;
}

static void fake_stop(struct fake *fake, struct qmp *qmp)
{
	qmp_close(qmp);
	(void)pthread_join(fake->thread, NULL);
	(void)close(fake->fd);
	if (fake->unexpected != NULL)
		fail_msg("the client did not send %s", fake->unexpected);
}

static void reader_joins_a_message_from_single_bytes(void **state)
{
	const char text[] = "{\"a\": \"x\\ny\"}\r\n";
	struct qmp_reader reader = {0};
	json_t *message = NULL;
	size_t used;

	(void)state;
	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		assert_null(message);
		assert_int_equal(qmp_reader_feed(&reader, text + i, 1, &used, &message), 0);
		assert_int_equal(used, 1);
	}
	assert_string_equal(json_string_value(json_object_get(message, "a")), "x\ny");
	json_decref(message);
	qmp_reader_finish(&reader);
}

static void reader_stops_after_the_first_of_two_messages(void **state)
{
	const char text[] = "\r\n{\"n\": 1}\r\n{\"n\": 2}\r\n";
	struct qmp_reader reader = {0};
	json_t *message;
	size_t used, more;

	(void)state;
	assert_int_equal(qmp_reader_feed(&reader, text, sizeof(text) - 1, &used, &message), 0);
	assert_int_equal(json_integer_value(json_object_get(message, "n")), 1);
	json_decref(message);
	assert_int_equal(
		qmp_reader_feed(&reader, text + used, sizeof(text) - 1 - used, &more, &message), 0);
	assert_int_equal(json_integer_value(json_object_get(message, "n")), 2);
	assert_int_equal(used + more, sizeof(text) - 1);
	json_decref(message);
	qmp_reader_finish(&reader);
}

static void reader_refuses_what_is_no_object(void **state)
{
	static const char *const texts[] = {"hello\n", "[1]\n", "{\"a\": \n", "{} {}\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct qmp_reader reader = {0};
		json_t *message;
		size_t used;

		assert_int_equal(
			qmp_reader_feed(&reader, texts[i], strlen(texts[i]), &used, &message),
			-EUCLEAN);
		assert_null(message);
		qmp_reader_finish(&reader);
	}
}

static void reader_refuses_an_endless_line(void **state)
{
	struct qmp_reader reader = {0};
	cleanup_free char *spaces = malloc(1 << 20);
	json_t *message;
	size_t used;
	int code = 0;

	(void)state;
	memset(spaces, ' ', 1 << 20);
	for (int i = 0; i < 16; i++) {
		code = qmp_reader_feed(&reader, spaces, 1 << 20, &used, &message);
		assert_int_equal(code, 0);
	}
	code = qmp_reader_feed(&reader, spaces, 1, &used, &message);
	assert_int_equal(code, -EFBIG);
	qmp_reader_finish(&reader);
}

static void attach_enables_oob_if_it_is_offered(void **state)
{
	struct fake fake = {.greeting = GREETING_OOB,
		.steps = {{"\"enable\":[\"oob\"]", OK}, {"exec-oob", OK}}};
	struct qmp *qmp = fake_start(&fake, NULL);

	(void)state;
	assert_string_equal(qmp_version(qmp), "7.2.22");
	assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), 0);
	fake_stop(&fake, qmp);
}

static void attach_does_without_oob(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN, .steps = {HELLO, {"\"execute\"", OK}}};
	struct qmp *qmp = fake_start(&fake, NULL);

	(void)state;
	assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), 0);
	fake_stop(&fake, qmp);
}

static void execute_returns_the_result_and_keeps_events(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {"\"x\":7", STOP_EVENT
					 "{\"return\": {\"status\": \"paused\"}, \"id\": ID}\n"}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	uint64_t before = rouse_clock_ns(), arrived = 0;
	json_t *result = NULL, *event = NULL;

	(void)state;
	assert_int_equal(
		qmp_execute(qmp, "query-status", json_pack("{s:i}", "x", 7), &result, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(result, "status")), "paused");
	json_decref(result);
	assert_int_equal(qmp_next_event(qmp, 0, &event, &arrived, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(event, "event")), "STOP");
	assert_true(arrived >= before && arrived <= rouse_clock_ns());
	json_decref(event);
	fake_stop(&fake, qmp);
}

static void execute_passes_on_the_words_of_qemu(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {"cont", "{\"id\": ID, \"error\": {\"class\": \"GenericError\", "
					  "\"desc\": \"no way\"}}\n"}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	struct rouse_error error;

	(void)state;
	assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL, &error), -EREMOTEIO);
	assert_int_equal(error.kind, ROUSE_ERROR_VMM);
	assert_string_equal(error.message, "QEMU refused 'cont': no way");
	fake_stop(&fake, qmp);
}

static void execute_tells_an_unknown_command(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {
			HELLO, {"quux", "{\"id\": ID, \"error\": {\"class\": \"CommandNotFound\", "
					"\"desc\": \"?\"}}\n"}}};
	struct qmp *qmp = fake_start(&fake, NULL);

	(void)state;
	assert_int_equal(qmp_execute(qmp, "quux", NULL, NULL, NULL), -ENOSYS);
	fake_stop(&fake, qmp);
}

static void execute_drops_the_late_answer_of_another_command(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {"stop", "{\"id\": 999, \"return\": {\"late\": 1}}\n"
					  "{\"id\": ID, \"return\": {\"late\": 0}}\n"}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	json_t *result = NULL;

	(void)state;
	assert_int_equal(qmp_execute(qmp, "stop", NULL, &result, NULL), 0);
	assert_int_equal(json_integer_value(json_object_get(result, "late")), 0);
	json_decref(result);
	fake_stop(&fake, qmp);
}

static void execute_says_that_qemu_has_ended(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN, .steps = {HELLO}};
	struct qmp *qmp = fake_start(&fake, NULL);
	struct rouse_error error;

	(void)state;
	assert_int_equal(qmp_execute(qmp, "stop", NULL, NULL, &error), -EPIPE);
	assert_int_equal(error.kind, ROUSE_ERROR_VMM);
	assert_non_null(strstr(error.message, "'stop'"));
	fake_stop(&fake, qmp);
}

static void after_a_cancel_nothing_is_sent(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN, .steps = {HELLO, {"cont", OK}}};
	struct rouse_observer observer = {0};
	struct rouse_error error;
	struct qmp *qmp;

	(void)state;
	assert_int_equal(rouse_cancel_new(&observer.cancel), 0);
	qmp = fake_start(&fake, &observer);
	rouse_cancel_fire(observer.cancel);
	assert_int_equal(qmp_execute(qmp, "stop", NULL, NULL, &error), -ECANCELED);
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
	qmp_ignore_cancel(qmp);
	assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL, &error), 0);
	fake_stop(&fake, qmp);
	rouse_cancel_free(observer.cancel);
}

static void what_was_sent_before_a_cancel_is_waited_for(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {.expect = "stop", .say = OK, .cancel = true}}};
	struct rouse_observer observer = {0};
	struct qmp *qmp;

	(void)state;
	assert_int_equal(rouse_cancel_new(&fake.cancel), 0);
	observer.cancel = fake.cancel;
	qmp = fake_start(&fake, &observer);
	assert_int_equal(qmp_execute(qmp, "stop", NULL, NULL, NULL), 0);
	assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL, NULL), -ECANCELED);
	fake_stop(&fake, qmp);
	rouse_cancel_free(fake.cancel);
}

static void cancel_ends_the_wait_for_an_answer_that_does_not_come(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {.expect = "stop", .say = "\n", .cancel = true}, {"cont", OK}}};
	struct rouse_observer observer = {0};
	struct rouse_error error;
	struct qmp *qmp;
	int code;

	(void)state;
	assert_int_equal(rouse_cancel_new(&fake.cancel), 0);
	observer.cancel = fake.cancel;
	qmp = fake_start(&fake, &observer);
	code = qmp_execute(qmp, "stop", NULL, NULL, &error);
	assert_int_equal(code, -ECANCELED);
	assert_true(qmp_unknown(code));
	assert_int_equal(error.kind, ROUSE_ERROR_CANCELLED);
	qmp_ignore_cancel(qmp);
	assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL, &error), 0);
	fake_stop(&fake, qmp);
	rouse_cancel_free(fake.cancel);
}

/* Whoever puts several things back in a QEMU that does not answer waits for it once. */
static void qemu_that_left_a_command_unanswered_is_waited_for_briefly_until_it_speaks(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN,
		.steps = {HELLO, {"stop", "\n"}, {"cont", "\n"}, {"quit", OK}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	struct rouse_error error;
	uint64_t before;

	(void)state;
	assert_int_equal(qmp_execute_within(qmp, 20, "stop", NULL, NULL, &error), -ETIMEDOUT);
	before = rouse_clock_ns();
	assert_int_equal(qmp_execute(qmp, "cont", NULL, NULL, &error), -ETIMEDOUT);
	assert_true(rouse_clock_ns() - before < UINT64_C(20000000000));
	assert_non_null(strstr(error.message, "'cont' in time"));
	assert_int_equal(qmp_execute(qmp, "quit", NULL, NULL, &error), 0);
	fake_stop(&fake, qmp);
}

static void next_event_gives_up_in_time(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN, .steps = {HELLO, {"bye", OK}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	uint64_t before = rouse_clock_ns();
	json_t *event = NULL;

	(void)state;
	assert_int_equal(qmp_next_event(qmp, 20, &event, NULL, NULL), 0);
	assert_null(event);
	assert_true(rouse_clock_ns() - before >= UINT64_C(20000000));
	fake_stop(&fake, qmp);
}

static void send_fd_hands_over_a_descriptor(void **state)
{
	struct fake fake = {
		.greeting = GREETING_PLAIN, .steps = {HELLO, {"\"fdname\":\"rouse\"", OK}}};
	struct qmp *qmp = fake_start(&fake, NULL);
	int pipe_fds[2];
	char byte = 0;

	(void)state;
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(qmp_send_fd(qmp, "rouse", pipe_fds[1], NULL), 0);
	(void)close(pipe_fds[1]);
	assert_true(fake.got_fd >= 0);
	assert_int_equal(write(fake.got_fd, "k", 1), 1);
	assert_int_equal(read(pipe_fds[0], &byte, 1), 1);
	assert_int_equal(byte, 'k');
	(void)close(fake.got_fd);
	(void)close(pipe_fds[0]);
	fake_stop(&fake, qmp);
}

static void peer_pid_is_who_made_the_socket(void **state)
{
	struct fake fake = {.greeting = GREETING_PLAIN, .steps = {HELLO}};
	struct qmp *qmp = fake_start(&fake, NULL);

	(void)state;
	assert_int_equal(qmp_peer_pid(qmp), getpid());
	fake_stop(&fake, qmp);
}

static void connect_tells_that_nobody_listens(void **state)
{
	struct rouse_error error;
	struct qmp *qmp;

	(void)state;
	assert_int_equal(qmp_connect("/nonexistent/qmp", 0, NULL, &qmp, &error), -ENOENT);
	assert_non_null(strstr(error.message, "/nonexistent/qmp"));
}

static void connect_times_out_if_another_client_holds_the_monitor(void **state)
{
	char directory[] = "/tmp/rouse-test-XXXXXX";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rouse_error error;
	struct qmp *qmp;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/qmp", directory);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(qmp_connect(address.sun_path, 30, NULL, &qmp, &error), -ETIMEDOUT);
	assert_non_null(strstr(error.message, "another client"));
	(void)close(fd);
	(void)unlink(address.sun_path);
	(void)rmdir(directory);
}

/* The kernel tells whose the socket is, though nobody greets. */
static void connect_tells_that_qemu_is_stopped_and_how_it_goes_on(void **state)
{
	char directory[] = "/tmp/rouse-test-XXXXXX", wanted[32];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rouse_error error;
	struct qmp *qmp;
	pid_t pid;

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/qmp", directory);
	(void)fflush(NULL);
	pid = fork();
	if (pid == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
			listen(fd, 1) == 0)
			(void)raise(SIGSTOP);
		_exit(1);
	}
	assert_int_equal(waitpid(pid, NULL, WUNTRACED), pid);
	assert_int_equal(qmp_connect(address.sun_path, 30, NULL, &qmp, &error), -ETIMEDOUT);
	(void)snprintf(wanted, sizeof(wanted), "kill -CONT %d", (int)pid);
	assert_non_null(strstr(error.message, wanted));
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	(void)unlink(address.sun_path);
	(void)rmdir(directory);
}

static void attach_refuses_what_is_not_qmp(void **state)
{
	struct rouse_error error;
	struct qmp *qmp;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(write(fds[1], "220 mail ready\r\n", 16), 16);
	assert_int_equal(qmp_attach(fds[0], 1000, NULL, &qmp, &error), -EUCLEAN);
	(void)close(fds[1]);
}

/* The greeting of the fake stands for what QEMU said to the one before; "": all of it was read. */
static struct qmp *fake_adopt(struct fake *fake)
{
	struct qmp *qmp = NULL;
	struct pollfd said;
	int fds[2];

	fake->got_fd = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	fake->fd = fds[1];
	assert_int_equal(pthread_create(&fake->thread, NULL, fake_run, fake), 0);
	said = (struct pollfd){.fd = fds[0], .events = POLLIN};
	if (fake->greeting[0] != '\0')
		assert_int_equal(poll(&said, 1, -1), 1);
	assert_int_equal(qmp_adopt(fds[0], NULL, &qmp, NULL), 0);
	return qmp;
}

static void adopt_drops_what_was_said_to_the_one_before(void **state)
{
	struct fake fake = {.greeting = "ent\": \"STOP\"}\r\n",
		.steps = {{"exec-oob", "{\"return\": {}, \"id\": 1}\r\n" OK}}};
	struct qmp *qmp = fake_adopt(&fake);

	(void)state;
	/* An answer to what the one before asked as number 1 is not taken for ours. */
	assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), 0);
	fake_stop(&fake, qmp);
}

static void adopt_drops_the_rest_of_a_line_that_comes_later(void **state)
{
	static const char *const before[] = {"{\"event\": \"ST", ""};

	(void)state;
	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
		struct fake fake = {.greeting = before[i],
			.steps = {{"exec-oob", "OP\", \"timestamp\": {\"seconds\": 1, "
					       "\"microseconds\": 2}}\r\n" STOP_EVENT OK}}};
		struct qmp *qmp = fake_adopt(&fake);
		json_t *event = NULL;

		assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), 0);
		assert_int_equal(qmp_next_event(qmp, 0, &event, NULL, NULL), 0);
		assert_non_null(event);
		json_decref(event);
		fake_stop(&fake, qmp);
	}
}

static void adopt_takes_an_answer_that_is_the_first_line(void **state)
{
	static const char *const before[] = {STOP_EVENT, ""};

	(void)state;
	for (size_t i = 0; i < sizeof(before) / sizeof(before[0]); i++) {
		struct fake fake = {.greeting = before[i], .steps = {{"exec-oob", OK}}};
		struct qmp *qmp = fake_adopt(&fake);

		assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), 0);
		fake_stop(&fake, qmp);
	}
}

static void adopt_drops_no_more_than_one_line(void **state)
{
	struct fake fake = {.greeting = "{\"event", .steps = {{"exec-oob", "\": 1}\n\": 1}\n" OK}}};
	struct qmp *qmp = fake_adopt(&fake);

	(void)state;
	assert_int_equal(qmp_execute_oob(qmp, "migrate-recover", NULL, NULL, NULL), -EUCLEAN);
	fake_stop(&fake, qmp);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reader_joins_a_message_from_single_bytes),
		cmocka_unit_test(reader_stops_after_the_first_of_two_messages),
		cmocka_unit_test(reader_refuses_what_is_no_object),
		cmocka_unit_test(reader_refuses_an_endless_line),
		cmocka_unit_test(attach_enables_oob_if_it_is_offered),
		cmocka_unit_test(attach_does_without_oob),
		cmocka_unit_test(execute_returns_the_result_and_keeps_events),
		cmocka_unit_test(execute_passes_on_the_words_of_qemu),
		cmocka_unit_test(execute_tells_an_unknown_command),
		cmocka_unit_test(execute_drops_the_late_answer_of_another_command),
		cmocka_unit_test(execute_says_that_qemu_has_ended),
		cmocka_unit_test(after_a_cancel_nothing_is_sent),
		cmocka_unit_test(what_was_sent_before_a_cancel_is_waited_for),
		cmocka_unit_test(cancel_ends_the_wait_for_an_answer_that_does_not_come),
		cmocka_unit_test(
			qemu_that_left_a_command_unanswered_is_waited_for_briefly_until_it_speaks),
		cmocka_unit_test(next_event_gives_up_in_time),
		cmocka_unit_test(send_fd_hands_over_a_descriptor),
		cmocka_unit_test(peer_pid_is_who_made_the_socket),
		cmocka_unit_test(connect_tells_that_nobody_listens),
		cmocka_unit_test(connect_times_out_if_another_client_holds_the_monitor),
		cmocka_unit_test(connect_tells_that_qemu_is_stopped_and_how_it_goes_on),
		cmocka_unit_test(attach_refuses_what_is_not_qmp),
		cmocka_unit_test(adopt_drops_what_was_said_to_the_one_before),
		cmocka_unit_test(adopt_drops_the_rest_of_a_line_that_comes_later),
		cmocka_unit_test(adopt_takes_an_answer_that_is_the_first_line),
		cmocka_unit_test(adopt_drops_no_more_than_one_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
