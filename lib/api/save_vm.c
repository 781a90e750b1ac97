/* SPDX-License-Identifier: MIT */
#include "api/save_vm.h"

int save_vm_is_running(struct qmp *qmp, bool *running, struct rouse_error *error)
{
	json_t *status;
	int code = qmp_execute(qmp, "query-status", NULL, &status, error);

	if (code < 0)
		return code;
	*running = json_is_true(json_object_get(status, "running"));
	json_decref(status);
	return 0;
}

/* 7.2 starts it by itself after a background snapshot's begin. */
int save_vm_continue(struct qmp *qmp, struct rouse_error *error)
{
	bool running = false;
	int code = save_vm_is_running(qmp, &running, error);

	if (code == 0 && !running)
		code = qmp_execute(qmp, "cont", NULL, NULL, error);
	return code;
}
