/* SPDX-License-Identifier: MIT */
#include "vmm/qemu_incoming.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define CONNECTION_NAME "rouse-migration"
#define MARK_PREFIX "rouse-checkpoint-"
#define LOAD_TIMEOUT_NS UINT64_C(600000000000)  /* for QEMU to load what it was sent */
#define CANCELLED_LOAD_NS UINT64_C(3000000000)  /* the same after a cancel */
#define RECOVER_TIMEOUT_NS UINT64_C(5000000000) /* for QEMU to notice that a Rouse has died */

static void json_free(json_t **value)
{
	json_decref(*value);
}
#define cleanup_json cleanup_with(json_free)

static void copy_text(char *out, size_t size, const char *text)
{
	(void)snprintf(out, size, "%s", text != NULL ? text : "");
}

int qemu_incoming_run_state(struct qmp *qmp, char *state, size_t size, struct rouse_error *error)
{
	cleanup_json json_t *result = NULL;
	int code = qmp_execute(qmp, "query-status", NULL, &result, error);

	if (code == 0)
		copy_text(state, size, json_string_value(json_object_get(result, "status")));
	return code;
}

bool qemu_incoming_is_paused(const char *state)
{
	return strcmp(state, "paused") == 0 || strcmp(state, "prelaunch") == 0;
}

void qemu_incoming_tell_if_paused(struct qmp *qmp, const struct rouse_observer *observer)
{
	char state[64];

	if (qemu_incoming_run_state(qmp, state, sizeof(state), NULL) == 0 &&
		qemu_incoming_is_paused(state))
		rouse_log(observer, ROUSE_LOG_WARNING,
			"the VM is complete, and paused, as it was before it was taken over: "
			"QMP's cont lets it run");
}

int qemu_incoming_status(struct qmp *qmp, char *status, size_t size, struct rouse_error *error)
{
	cleanup_json json_t *result = NULL;
	const char *text;
	int code = qmp_execute(qmp, "query-migrate", NULL, &result, error);

	if (code < 0)
		return code;
	text = json_string_value(json_object_get(result, "status"));
	copy_text(status, size, text != NULL ? text : "none");
	return 0;
}

static int check_machine(struct qmp *qmp, const char *machine, struct rouse_error *error)
{
	cleanup_json json_t *result = NULL;
	const char *type;
	size_t length = strlen(machine);
	int code = qmp_execute(qmp, "qom-get",
		json_pack("{s:s, s:s}", "path", "/machine", "property", "type"), &result, error);

	if (code < 0)
		return code;
	type = json_string_value(result);
	/* The type is the machine's name and "-machine". */
	if (type == NULL ||
		(strncmp(type, machine, length) == 0 && strcmp(type + length, "-machine") == 0))
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"the image is of machine %s, but this QEMU is a %.*s: start it with -machine %s",
		machine, (int)strcspn(type, " ") - (int)strlen("-machine"), type, machine);
}

static int check_memory(struct qmp *qmp, uint64_t ram_bytes, struct rouse_error *error)
{
	cleanup_json json_t *result = NULL;
	uint64_t here;
	int code = qmp_execute(qmp, "query-memory-size-summary", NULL, &result, error);

	if (code < 0)
		return code;
	here = (uint64_t)json_integer_value(json_object_get(result, "base-memory")) +
	       (uint64_t)json_integer_value(json_object_get(result, "plugged-memory"));
	if (here == ram_bytes)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"the image is of a VM with %llu MiB of RAM, but this QEMU has %llu MiB: start it "
		"with -m %llu",
		(unsigned long long)ram_bytes >> 20, (unsigned long long)here >> 20,
		(unsigned long long)ram_bytes >> 20);
}

static int check_vcpus(struct qmp *qmp, unsigned int vcpus, struct rouse_error *error)
{
	cleanup_json json_t *result = NULL;
	int code = qmp_execute(qmp, "query-cpus-fast", NULL, &result, error);

	if (code < 0 || json_array_size(result) == vcpus)
		return code;
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"the image is of a VM with %u vCPUs, but this QEMU has %zu: start it with -smp %u",
		vcpus, json_array_size(result), vcpus);
}

int qemu_incoming_check(
	struct qmp *qmp, const struct qemu_expectation *expectation, struct rouse_error *error)
{
	char state[64];
	int code = qemu_incoming_run_state(qmp, state, sizeof(state), error);

	if (code < 0)
		return code;
	if (strcmp(state, "inmigrate") != 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"that QEMU does not wait for a VM (it is %s): start it with -incoming "
			"defer",
			state);
	if (expectation->machine != NULL && expectation->machine[0] != '\0')
		code = check_machine(qmp, expectation->machine, error);
	if (code == 0 && expectation->ram_bytes > 0)
		code = check_memory(qmp, expectation->ram_bytes, error);
	if (code == 0 && expectation->vcpus > 0)
		code = check_vcpus(qmp, expectation->vcpus, error);
	return code;
}

static int set_capability(struct qmp *qmp, const char *name, struct rouse_error *error)
{
	return qmp_execute(qmp, "migrate-set-capabilities",
		json_pack("{s:[{s:s, s:b}]}", "capabilities", "capability", name, "state", 1), NULL,
		error);
}

static int refuse_postcopy(const char *why, struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
		"QEMU may not restore on demand (%s). Run it as root, or set "
		"vm.unprivileged_userfaultfd=1, or use --policy eager",
		why);
}

int qemu_incoming_may_postcopy(struct rouse_error *error)
{
	/* QEMU uses either; the device (Linux 6.1, QEMU 8.0) can be opened to a group. */
	cleanup_close int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0)
		return 0;
	if (errno == ENOSYS)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -ENOSYS,
			"this kernel has no userfaultfd, which restoring on demand needs: use "
			"--policy eager");
	fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	return fd >= 0 ? 0 : refuse_postcopy("this user may not use userfaultfd", error);
}

/* With one of these QEMU waits for further connections before it reads the first one. */
static bool wants_connections(const char *capability)
{
	return strcmp(capability, "multifd") == 0 || strcmp(capability, "postcopy-preempt") == 0;
}

static int check_connections(struct qmp *qmp, struct rouse_error *error)
{
	cleanup_json json_t *list = NULL;
	const json_t *one;
	char names[64] = "";
	size_t i, used = 0;
	int code = qmp_execute(qmp, "query-migrate-capabilities", NULL, &list, error);

	if (code < 0)
		return code;
	json_array_foreach(list, i, one)
	{
		const char *name = json_string_value(json_object_get(one, "capability"));

		/* Each is listed once: two names fit. */
		if (name != NULL && json_is_true(json_object_get(one, "state")) &&
			wants_connections(name) && used < sizeof(names))
			used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
				used > 0 ? " and " : "", name);
	}
	if (used == 0)
		return 0;
	return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EINVAL,
		"that QEMU would wait for more connections than the one that Rouse makes: set its "
		"migration capability %s off (QMP's migrate-set-capabilities, or its command line)",
		names);
}

int qemu_incoming_prepare(struct qmp *qmp, bool postcopy, struct rouse_error *error)
{
	struct rouse_error why = {0};
	int code = check_connections(qmp, error);

	if (code == 0)
		code = set_capability(qmp, "events", error);
	if (code < 0 || !postcopy)
		return code;
	code = set_capability(qmp, "postcopy-ram", &why);
	if (code == -EREMOTEIO)
		return refuse_postcopy(why.message, error);
	if (code < 0) {
		if (error != NULL)
			*error = why;
		return code;
	}
	/* Only a second opinion on the stalls: a QEMU without it restores as well. */
	(void)set_capability(qmp, "postcopy-blocktime", NULL);
	return 0;
}

/* "rouse-checkpoint-" and 16 hexadecimal digits. */
struct mark {
	char id[40];
};

static struct mark mark_of(uint64_t checkpoint)
{
	struct mark mark;

	(void)snprintf(
		mark.id, sizeof(mark.id), MARK_PREFIX "%016llx", (unsigned long long)checkpoint);
	return mark;
}

int qemu_incoming_hold(struct qmp *qmp, struct rouse_error *error)
{
	/* While it waits for a migration this stops nothing, and forgets that it is to start. */
	return qmp_execute(qmp, "stop", NULL, NULL, error);
}

/* The mark of an earlier restore; "" if there is none. */
static int find_mark(struct qmp *qmp, struct mark *mark, struct rouse_error *error)
{
	cleanup_json json_t *objects = NULL;
	const json_t *object;
	size_t index;
	int code = qmp_execute(
		qmp, "qom-list", json_pack("{s:s}", "path", "/objects"), &objects, error);

	mark->id[0] = '\0';
	if (code < 0)
		return code;
	json_array_foreach(objects, index, object)
	{
		const char *name = json_string_value(json_object_get(object, "name"));

		if (name != NULL && strncmp(name, MARK_PREFIX, strlen(MARK_PREFIX)) == 0)
			copy_text(mark->id, sizeof(mark->id), name);
	}
	return 0;
}

int qemu_incoming_mark(struct qmp *qmp, uint64_t checkpoint, struct rouse_error *error)
{
	const struct mark mark = mark_of(checkpoint);
	struct mark old;
	int code = find_mark(qmp, &old, error);

	/* A restore that failed before anything was sent may be tried again. */
	if (code == 0 && old.id[0] != '\0')
		code = qmp_execute(
			qmp, "object-del", json_pack("{s:s}", "id", old.id), NULL, error);
	if (code < 0)
		return code;
	/* Of all objects a secret is the one that every QEMU has and that does nothing. */
	return qmp_execute(qmp, "object-add",
		json_pack("{s:s, s:s, s:s}", "qom-type", "secret", "id", mark.id, "data", ""), NULL,
		error);
}

int qemu_incoming_other_checkpoint(struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
		"that VM is of another checkpoint than this image: take over with the image that "
		"its restore began with");
}

static int check_mark(struct qmp *qmp, uint64_t checkpoint, struct rouse_error *error)
{
	const struct mark wanted = mark_of(checkpoint);
	struct mark mark;
	int code = find_mark(qmp, &mark, error);

	if (code < 0 || strcmp(mark.id, wanted.id) == 0)
		return code;
	if (mark.id[0] == '\0')
		return rouse_error_set(error, ROUSE_ERROR_MISMATCH, -EINVAL,
			"that VM was not restored by Rouse: only its own source has its memory");
	return qemu_incoming_other_checkpoint(error);
}

int qemu_incoming_socketpair(int *ours, int *qemus, struct rouse_error *error)
{
	int fds[2];

	/* Until exec in a child both must stay closed there: qemu_process clears it for its own. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return rouse_error_errno(error, -errno, "cannot make a socket pair");
	*ours = fds[0];
	*qemus = fds[1];
	return 0;
}

int qemu_incoming_say_first(int fd, const struct qemu_first_words *first, struct rouse_error *error)
{
	ssize_t n = send(fd, first->bytes, first->size, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n == (ssize_t)first->size)
		return 0;
	return rouse_error_errno(
		error, n < 0 ? -errno : -ENOBUFS, "cannot write to the migration connection");
}

/* How to tell QEMU: in band, or out of band. */
typedef int execute_fn(struct qmp *qmp, const char *command, json_t *arguments, json_t **result,
	struct rouse_error *error);

static int hand_over_connection(struct qmp *qmp, execute_fn *execute, const char *command,
	const struct qemu_first_words *first, int *fd, struct rouse_error *error)
{
	cleanup_close int ours = -1;
	cleanup_close int qemus = -1;
	int code = qemu_incoming_socketpair(&ours, &qemus, error);

	if (code == 0 && first->size > 0)
		code = qemu_incoming_say_first(ours, first, error);
	if (code == 0)
		code = qmp_send_fd(qmp, CONNECTION_NAME, qemus, error);
	if (code == 0)
		code = execute(qmp, command, json_pack("{s:s}", "uri", "fd:" CONNECTION_NAME), NULL,
			error);
	if (code == 0)
		*fd = take_fd(&ours);
	return code;
}

int qemu_incoming_connect(struct qmp *qmp, int *fd, struct rouse_error *error)
{
	const struct qemu_first_words nothing = {0};
	int code = hand_over_connection(qmp, qmp_execute, "migrate-incoming", &nothing, fd, error);

	if (code == -EREMOTEIO)
		(void)rouse_error_prefix(error, "start QEMU with -incoming defer");
	return code;
}

int qemu_incoming_recover(struct qmp *qmp, uint64_t checkpoint,
	const struct qemu_first_words *first, int *fd, struct rouse_error *error)
{
	const uint64_t deadline = rouse_clock_ns() + RECOVER_TIMEOUT_NS;
	char status[64];

	for (;;) {
		int code = qemu_incoming_status(qmp, status, sizeof(status), error);

		if (code < 0)
			return code;
		if (strcmp(status, "postcopy-paused") == 0) {
			code = check_mark(qmp, checkpoint, error);
			/*
			 * Out of band: the thread that executes it also sees the connection. The
			 * main loop might wait for a page before it does, and once the next
			 * takeover has brought that, QEMU 7.2 aborts on a second connection.
			 */
			return code < 0 ? code
					: hand_over_connection(qmp, qmp_execute_oob,
						  "migrate-recover", first, fd, error);
		}
		/* In recovery: of a takeover whose Rouse died before QEMU had read its words. */
		if ((strcmp(status, "postcopy-active") != 0 &&
			    strcmp(status, "postcopy-recover") != 0) ||
			rouse_clock_ns() > deadline)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
				"that VM has no restore that broke off (its migration is \"%s\")",
				status);
		/* There is no event to wait for if it was sent before we connected. */
		(void)poll(NULL, 0, 10);
	}
}

/* When an event happened, by QEMU's real-time clock, on our monotonic one. */
static uint64_t event_time_ns(const json_t *event, uint64_t arrived_ns)
{
	const json_t *stamp = json_object_get(event, "timestamp");
	int64_t seconds = json_integer_value(json_object_get(stamp, "seconds"));
	int64_t microseconds = json_integer_value(json_object_get(stamp, "microseconds"));
	struct timespec real;
	int64_t ago;

	if (seconds <= 0 || microseconds < 0)
		return arrived_ns;
	(void)clock_gettime(CLOCK_REALTIME, &real);
	ago = ((int64_t)real.tv_sec - seconds) * INT64_C(1000000000) + (int64_t)real.tv_nsec -
	      microseconds * 1000;
	/* A clock that was set meanwhile must not spoil the measurement. */
	if (ago < 0 || ago > INT64_C(10000000000))
		return arrived_ns;
	return rouse_clock_ns() - (uint64_t)ago;
}

/* What an event means for a restore: 1 the guest runs, 2 the load is complete, or an error. */
static int judge_event(const json_t *event, struct rouse_error *error)
{
	const char *name = json_string_value(json_object_get(event, "event"));
	const char *status =
		json_string_value(json_object_get(json_object_get(event, "data"), "status"));

	if (name == NULL)
		return 0;
	if (strcmp(name, "RESUME") == 0)
		return 1;
	if (strcmp(name, "SHUTDOWN") == 0)
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, -EPIPE, "QEMU shut down during the restore");
	if (strcmp(name, "MIGRATION") != 0 || status == NULL)
		return 0;
	if (strcmp(status, "completed") == 0)
		return 2;
	if (strcmp(status, "failed") == 0 || strcmp(status, "postcopy-paused") == 0)
		return rouse_error_set(error, ROUSE_ERROR_VMM, -EREMOTEIO,
			"QEMU could not load the VM (its migration %s)", status);
	return 0;
}

/* Waits for one of judge_event()'s outcomes: a mask of 1 << outcome; 0 if none came in time. */
static int wait_for(struct qmp *qmp, unsigned int outcomes, int timeout_ms, uint64_t *when_ns,
	struct rouse_error *error)
{
	const uint64_t deadline = rouse_clock_ns() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		cleanup_json json_t *event = NULL;
		uint64_t now = rouse_clock_ns(), arrived = 0;
		int left = now < deadline ? (int)((deadline - now + 999999) / 1000000) : 0;
		int code = qmp_next_event(qmp, left, &event, &arrived, error);

		if (code < 0)
			return code;
		if (event == NULL)
			return 0;
		code = judge_event(event, error);
		if (code < 0)
			return code;
		if (code > 0 && (outcomes >> code & 1) != 0) {
			*when_ns = event_time_ns(event, arrived);
			return code;
		}
	}
}

bool qemu_incoming_outlasts_cancel(struct qmp *qmp, int code, uint64_t *until_ns)
{
	if (code != -ECANCELED || *until_ns != 0)
		return false;
	qmp_ignore_cancel(qmp);
	*until_ns = rouse_clock_ns() + CANCELLED_LOAD_NS;
	return true;
}

int qemu_incoming_wait_resume(
	struct qmp *qmp, int timeout_ms, uint64_t *started_ns, struct rouse_error *error)
{
	return wait_for(qmp, 1u << 1, timeout_ms, started_ns, error);
}

int qemu_incoming_wait_loaded(
	struct qmp *qmp, bool run, uint64_t *started_ns, struct rouse_error *error)
{
	return qemu_incoming_wait_loaded_unless(qmp, run, NULL, started_ns, error);
}

int qemu_incoming_wait_loaded_unless(struct qmp *qmp, bool run, const atomic_bool *given_up,
	uint64_t *started_ns, struct rouse_error *error)
{
	const int slice_ms = given_up != NULL ? 50 : 1000;
	const uint64_t deadline = rouse_clock_ns() + LOAD_TIMEOUT_NS;
	uint64_t when_ns = 0, cancelled_until_ns = 0;
	bool resumed = false;
	int code;

	/* A VM that was saved running says RESUME before the migration is complete. */
	do {
		/*
		 * What ends the wait is looked at before what QEMU says: a VM that runs has said so
		 * before it can be the reason, and must not be ended as one that never ran.
		 */
		const bool alone = given_up != NULL && atomic_load(given_up);
		const uint64_t now = rouse_clock_ns();
		const bool cancelled = cancelled_until_ns != 0 && now > cancelled_until_ns;
		const bool late = now > deadline;

		code = wait_for(qmp, 1u << 1 | 1u << 2, alone || cancelled || late ? 0 : slice_ms,
			&when_ns, error);
		if (qemu_incoming_outlasts_cancel(qmp, code, &cancelled_until_ns))
			code = 0;
		/* From here on it has started, whatever comes: it is not ended any more. */
		if (code == 1)
			*started_ns = when_ns;
		resumed = resumed || code == 1;
		if (code == 0 && alone)
			return rouse_error_set(error, ROUSE_ERROR_VMM, -ECANCELED,
				"a device of the VM waits for a page that nobody gives it");
		if (code == 0 && cancelled)
			return qemu_incoming_cancelled(error);
		if (code == 0 && late)
			return rouse_error_set(error, ROUSE_ERROR_VMM, -ETIMEDOUT,
				"QEMU does not finish loading the VM");
	} while (code == 0 || code == 1);
	if (code < 0)
		return code;
	if (!run) {
		code = qmp_execute(qmp, "stop", NULL, NULL, error);
		if (code == 0)
			*started_ns = when_ns;
		return code;
	}
	if (resumed)
		return 0;
	/* It would not run by itself: the user's word counts. */
	if (cancelled_until_ns != 0)
		return qemu_incoming_cancelled(error);
	code = qmp_execute(qmp, "cont", NULL, NULL, error);
	if (code == 0) {
		/* It may run from now on, whether RESUME is heard or not. */
		*started_ns = when_ns;
		code = wait_for(qmp, 1u << 1, 10000, started_ns, error);
	}
	if (code == 0)
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, -ETIMEDOUT, "QEMU does not let the VM run");
	return code < 0 ? code : 0;
}

/* Sums "postcopy-vcpu-blocktime": milliseconds for each vCPU. */
int64_t qemu_incoming_blocktime(struct qmp *qmp)
{
	cleanup_json json_t *result = NULL;
	const json_t *list, *one;
	int64_t sum = 0;
	size_t i;

	if (qmp_execute(qmp, "query-migrate", NULL, &result, NULL) < 0)
		return -1;
	list = json_object_get(result, "postcopy-vcpu-blocktime");
	if (!json_is_array(list))
		return -1;
	json_array_foreach(list, i, one) sum += json_integer_value(one);
	return sum * 1000;
}

int qemu_incoming_cancelled(struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_CANCELLED, -ECANCELED,
		"cancelled before the VM ran: the image is as it was");
}

int qemu_incoming_broken(struct qmp *qmp, int code, struct rouse_error *error)
{
	struct rouse_error why = {0};
	uint64_t ignored;
	char status[64] = "";
	int gone = wait_for(qmp, 0, 200, &ignored, &why);

	if (gone == 0)
		gone = qemu_incoming_status(qmp, status, sizeof(status), &why);
	if (gone == -EPIPE)
		return rouse_error_set(
			error, ROUSE_ERROR_VMM, -EPIPE, "QEMU ended before the VM was restored");
	if (gone < 0)
		return rouse_error_set(error, why.kind, gone, "%s", why.message);
	return rouse_error_set(error, ROUSE_ERROR_VMM, code,
		"QEMU closed the connection (its migration is \"%s\")", status);
}
