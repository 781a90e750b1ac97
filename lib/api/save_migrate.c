/* SPDX-License-Identifier: MIT */
#include "api/save_migrate.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/error.h"

#include <poll.h>
#include <string.h>

#define FD_NAME "rouse-save"
/* Far beyond any memory's speed, and below what QEMU multiplies it with. */
#define NO_BANDWIDTH_LIMIT (INT64_C(1) << 48)
/*
 * QEMU stops the VM by itself once it believes that what is left takes no longer than this, which
 * is true at once. So the VM need not be stopped first, and goes on by itself if we are killed.
 */
#define LONGEST_DOWNTIME_MS 2000000
#define QUERY_PAUSE_MS 2
#define CANCEL_TIMEOUT_MS 10000
#define FRAGILE_TIMEOUT_MS 600000
/* The first major version that ends a background snapshot properly when it breaks off. */
#define ROBUST_MAJOR 9

static json_t *capability(const char *name, bool state)
{
	return json_pack("{s:s, s:b}", "capability", name, "state", state);
}

static enum save_migration_state state_of(const char *status)
{
	static const struct {
		const char *status;
		enum save_migration_state state;
	} table[] = {
		{"none", SAVE_MIGRATION_NONE},
		{"completed", SAVE_MIGRATION_COMPLETED},
		{"failed", SAVE_MIGRATION_FAILED},
		{"cancelled", SAVE_MIGRATION_FAILED},
	};

	if (status == NULL)
		return SAVE_MIGRATION_NONE;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(status, table[i].status) == 0)
			return table[i].state;
	}
	return SAVE_MIGRATION_ACTIVE; /* setup, active, device, cancelling, postcopy... */
}

int save_migrate_query(
	struct save_migrate *migrate, enum save_migration_state *state, struct rouse_error *error)
{
	json_t *result;
	const char *status, *why;
	int code = qmp_execute(migrate->qmp, "query-migrate", NULL, &result, error);

	if (code < 0)
		return code;
	status = json_string_value(json_object_get(result, "status"));
	why = json_string_value(json_object_get(result, "error-desc"));
	*state = state_of(status);
	if (*state == SAVE_MIGRATION_FAILED)
		(void)rouse_error_set(error, ROUSE_ERROR_VMM, -EREMOTEIO,
			"QEMU could not send the VM's state (%s)%s%s", status,
			why != NULL ? ": " : "", why != NULL ? why : "");
	json_decref(result);
	return 0;
}

int save_migrate_check_idle(struct save_migrate *migrate, struct rouse_error *error)
{
	enum save_migration_state state;
	int code = save_migrate_query(migrate, &state, error);

	if (code == 0 && state == SAVE_MIGRATION_ACTIVE)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"a migration of this VM is under way: wait for its end, or cancel it");
	return code;
}

int save_migrate_wait(
	struct save_migrate *migrate, unsigned int timeout_ms, struct rouse_error *error)
{
	uint64_t deadline_us = rouse_clock_us() + (uint64_t)timeout_ms * 1000;

	for (;;) {
		enum save_migration_state state;
		int code = save_migrate_query(migrate, &state, error);

		if (code < 0)
			return code;
		if (state == SAVE_MIGRATION_FAILED)
			return -EREMOTEIO;
		if (state != SAVE_MIGRATION_ACTIVE)
			return 0;
		if (rouse_clock_us() > deadline_us)
			return rouse_error_set(error, ROUSE_ERROR_VMM, -ETIMEDOUT,
				"QEMU does not end its migration");
		(void)poll(NULL, 0, QUERY_PAUSE_MS);
	}
}

/* Those that are on and change the stream's form or when the VM stops: all but the events. */
static json_t *capabilities_off(const json_t *all, json_t **old)
{
	json_t *off = json_array();
	const json_t *each;
	size_t index;

	*old = json_array();
	json_array_foreach(all, index, each)
	{
		const char *name = json_string_value(json_object_get(each, "capability"));
		bool on = json_is_true(json_object_get(each, "state"));

		if (name == NULL)
			continue;
		if (on && strcmp(name, "events") != 0) {
			(void)json_array_append_new(off, capability(name, false));
			(void)json_array_append_new(*old, capability(name, true));
		} else if (!on && strcmp(name, "background-snapshot") == 0) {
			(void)json_array_append_new(*old, capability(name, false));
		}
	}
	return off;
}

static int set_capabilities(struct save_migrate *migrate, json_t *list, struct rouse_error *error)
{
	return qmp_execute(migrate->qmp, "migrate-set-capabilities",
		json_pack("{s:o}", "capabilities", list), NULL, error);
}

static int configure_capabilities(
	struct save_migrate *migrate, bool background, struct rouse_error *error)
{
	struct rouse_error why;
	json_t *all, *off;
	int code = qmp_execute(migrate->qmp, "query-migrate-capabilities", NULL, &all, error);

	if (code < 0)
		return code;
	off = capabilities_off(all, &migrate->old_capabilities);
	json_decref(all);
	if (json_array_size(off) > 0)
		code = set_capabilities(migrate, off, error);
	else
		json_decref(off);
	if (code < 0 || !background)
		return code;
	code = set_capabilities(
		migrate, json_pack("[o]", capability("background-snapshot", true)), &why);
	if (code == -EREMOTEIO) {
		rouse_log(migrate->observer, ROUSE_LOG_WARNING,
			"no background snapshot here: the VM will stand still while its memory is "
			"read (%s)",
			why.message);
		return 0;
	}
	if (code < 0 && error != NULL)
		*error = why;
	migrate->background = code == 0 || qmp_unknown(code);
	migrate->fragile =
		migrate->background && strtol(qmp_version(migrate->qmp), NULL, 10) < ROBUST_MAJOR;
	return code;
}

static int configure_parameters(struct save_migrate *migrate, struct rouse_error *error)
{
	static const char *const names[] = {"max-bandwidth", "downtime-limit", "tls-creds"};
	json_t *all, *arguments;
	const char *tls;
	int code = qmp_execute(migrate->qmp, "query-migrate-parameters", NULL, &all, error);

	if (code < 0)
		return code;
	migrate->old_parameters = json_object();
	tls = json_string_value(json_object_get(all, "tls-creds"));
	arguments = json_pack("{s:I, s:I}", "max-bandwidth", (json_int_t)NO_BANDWIDTH_LIMIT,
		"downtime-limit", (json_int_t)LONGEST_DOWNTIME_MS);
	if (tls != NULL && tls[0] != '\0')
		(void)json_object_set_new(arguments, "tls-creds", json_string(""));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		json_t *old = json_object_get(all, names[i]);

		if (old != NULL && json_object_get(arguments, names[i]) != NULL)
			(void)json_object_set(migrate->old_parameters, names[i], old);
	}
	json_decref(all);
	return qmp_execute(migrate->qmp, "migrate-set-parameters", arguments, NULL, error);
}

int save_migrate_configure(struct save_migrate *migrate, bool background, struct rouse_error *error)
{
	int code = configure_capabilities(migrate, background, error);

	return code < 0 ? code : configure_parameters(migrate, error);
}

/* Takes @arguments over. What QEMU does not take is told, as the command to give it later. */
static void put_back(struct save_migrate *migrate, const char *command, json_t *arguments)
{
	cleanup_free char *line = NULL;
	struct rouse_error error;
	json_t *whole;
	int code = qmp_execute(migrate->qmp, command, json_incref(arguments), NULL, &error);

	if (code < 0 && !migrate->ended) {
		whole = json_pack("{s:s, s:O}", "execute", command, "arguments", arguments);
		line = json_dumps(whole, JSON_COMPACT);
		json_decref(whole);
		rouse_log(migrate->observer, ROUSE_LOG_WARNING,
			"QEMU's migration settings could not be put back (%s); its monitor does it "
			"by: %s",
			error.message, line != NULL ? line : command);
	}
	json_decref(arguments);
}

void save_migrate_restore(struct save_migrate *migrate)
{
	if (migrate->old_parameters != NULL && json_object_size(migrate->old_parameters) > 0)
		put_back(migrate, "migrate-set-parameters", json_incref(migrate->old_parameters));
	/* That of a background snapshot is among them. */
	if (json_array_size(migrate->old_capabilities) > 0)
		put_back(migrate, "migrate-set-capabilities",
			json_pack("{s:O}", "capabilities", migrate->old_capabilities));
	json_decref(migrate->old_capabilities);
	json_decref(migrate->old_parameters);
	migrate->old_capabilities = migrate->old_parameters = NULL;
}

int save_migrate_start(struct save_migrate *migrate, int fd, struct rouse_error *error)
{
	int code = qmp_send_fd(migrate->qmp, FD_NAME, fd, error);

	migrate->lent = code == 0 || qmp_unknown(code);
	if (code < 0)
		return code;
	code = qmp_execute(
		migrate->qmp, "migrate", json_pack("{s:s}", "uri", "fd:" FD_NAME), NULL, error);
	/* Without an answer it may run: a stream that nobody reads would be its VM's end. */
	migrate->started = code == 0 || qmp_unknown(code);
	return code;
}

void save_migrate_cancel(struct save_migrate *migrate)
{
	struct rouse_error error;
	enum save_migration_state state;
	int code;

	/* `migrate` takes it; if it did not, it would hold the stream open. */
	if (migrate->lent && !migrate->started)
		(void)qmp_execute(
			migrate->qmp, "closefd", json_pack("{s:s}", "fdname", FD_NAME), NULL, NULL);
	migrate->lent = false;
	if (!migrate->started)
		return;
	code = save_migrate_query(migrate, &state, &error);
	if (code == 0 && state == SAVE_MIGRATION_ACTIVE) {
		if (!migrate->fragile)
			(void)qmp_execute(migrate->qmp, "migrate_cancel", NULL, NULL, NULL);
		code = save_migrate_wait(
			migrate, migrate->fragile ? FRAGILE_TIMEOUT_MS : CANCEL_TIMEOUT_MS, &error);
	}
	if (code < 0 && code != -EREMOTEIO && code != -EPIPE)
		rouse_log(migrate->observer, ROUSE_LOG_WARNING, "%s: %s",
			migrate->fragile ? "a process of Rouse's stays until the migration has "
					   "ended, which must not be cancelled"
					 : "the migration could not be cancelled",
			error.message);
	migrate->started = false;
}
