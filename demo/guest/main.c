// SPDX-License-Identifier: MIT
/*
 * The driver in the demo's guest: it does what the host tells it over the second serial port.
 *
 *   host says                         the guest answers
 *   hello                             hello CPUS RAM_KB WORKLOAD...     (also said once at boot)
 *   start WORKLOAD MB [PERIOD_US]     progress LABEL DONE TOTAL ...  ready PAGES
 *   ready?                            ready PAGES | waiting
 *   stamp                             stamped PAGES
 *   verify                            verified PAGES errors N
 *   quiet on | quiet off              quiet on | quiet off
 *   period US                         period US
 *   served                            served NOW_US REQUESTS
 *   meminfo                           meminfo TOTAL_KB FREE_KB CACHED_KB ANON_KB
 *   echo TEXT                         echo TEXT
 *   poweroff                          (none)
 *   anything else, or a failure       error TEXT
 *
 * By itself it says `r CPU SEQ START_US END_US` for every request, in microseconds of the guest's
 * CLOCK_MONOTONIC, and `dropped CPU COUNT` if the serial port was too slow for some of them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "link.h"
#include "workload.h"

#define LINK_PATH "/dev/ttyS1"
#define PERIOD_US 5000

atomic_uint_fast64_t workload_errors;

static const struct workload *const workloads[] = {
	&workload_idle,
	&workload_kv,
	&workload_scan,
#ifdef HAVE_SQLITE
	&workload_sql,
#endif
};

#define WORKLOADS (sizeof(workloads) / sizeof(workloads[0]))

static const struct workload *running;
static unsigned int cpus;

static long meminfo_kb(const char *name)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	long kb = -1;

	if (!file)
		return -1;
	while (kb < 0 && fgets(line, sizeof(line), file)) {
		size_t len = strlen(name);

		if (!strncmp(line, name, len) && line[len] == ':')
			kb = strtol(line + len + 1, NULL, 10);
	}
	fclose(file);
	return kb;
}

static void say_hello(void)
{
	char names[128] = "";
	size_t len = 0;

	for (size_t i = 0; i < WORKLOADS && len < sizeof(names); i++)
		len += (size_t)snprintf(
			names + len, sizeof(names) - len, " %s", workloads[i]->name);
	link_send("hello %u %ld%s", cpus, meminfo_kb("MemTotal"), names);
}

static void start(const char *args)
{
	unsigned long long mb = 0, period_us = PERIOD_US;
	char name[32] = "";
	int err;

	if (running || sscanf(args, "%31s %llu %llu", name, &mb, &period_us) < 2 ||
		period_us == 0) {
		link_send("error start: %s", running ? "runs already" : "WORKLOAD MB [PERIOD_US]");
		return;
	}
	for (size_t i = 0; i < WORKLOADS; i++) {
		if (!strcmp(workloads[i]->name, name))
			running = workloads[i];
	}
	if (!running) {
		link_send("error start: no workload %s", name);
		return;
	}
	err = running->start((size_t)mb, cpus);
	if (!err)
		err = loop_start(running, cpus, period_us);
	if (err)
		link_send("error start: %s", strerror(-err));
	else
		link_send("ready %llu", (unsigned long long)stamp_pages());
}

static void verify(void)
{
	struct stamp_result result = stamp_verify();

	if (running && running->verify) {
		struct stamp_result more = running->verify();

		result.pages += more.pages;
		result.errors += more.errors;
	}
	result.errors += atomic_load(&workload_errors);
	link_send("verified %llu errors %llu", (unsigned long long)result.pages,
		(unsigned long long)result.errors);
}

static void stamp(void)
{
	if (running && running->renew)
		running->renew();
	link_send("stamped %llu", (unsigned long long)stamp_renew());
}

static void set_period(const char *args)
{
	unsigned long long period_us = strtoull(args, NULL, 10);

	if (period_us == 0) {
		link_send("error period: US");
		return;
	}
	loop_set_period(period_us);
	link_send("period %llu", period_us);
}

static void served(void)
{
	unsigned long long now_us = link_now_us(), requests = loop_served();

	link_send("served %llu %llu", now_us, requests);
}

static void obey(const char *line)
{
	if (!strcmp(line, "hello"))
		say_hello();
	else if (!strncmp(line, "start ", 6))
		start(line + 6);
	else if (!strcmp(line, "ready?"))
		link_send(running ? "ready %llu" : "waiting", (unsigned long long)stamp_pages());
	else if (!strcmp(line, "stamp"))
		stamp();
	else if (!strcmp(line, "verify"))
		verify();
	else if (!strcmp(line, "quiet on") || !strcmp(line, "quiet off")) {
		link_set_quiet(!strcmp(line, "quiet on"));
		link_send("%s", line);
	} else if (!strncmp(line, "period ", 7))
		set_period(line + 7);
	else if (!strcmp(line, "served"))
		served();
	else if (!strcmp(line, "meminfo"))
		link_send("meminfo %ld %ld %ld %ld", meminfo_kb("MemTotal"), meminfo_kb("MemFree"),
			meminfo_kb("Cached"), meminfo_kb("AnonPages"));
	else if (!strncmp(line, "echo ", 5))
		link_send("%s", line);
	else if (!strcmp(line, "poweroff"))
		reboot(RB_POWER_OFF);
	else if (line[0])
		link_send("error no such command: %s", line);
}

int main(void)
{
	char line[256];
	int err;

	cpus = (unsigned int)sysconf(_SC_NPROCESSORS_ONLN);
	err = link_open(LINK_PATH, cpus);
	if (err) {
		fprintf(stderr, "driver: %s: %s\n", LINK_PATH, strerror(-err));
		return 1;
	}
	say_hello();
	while (!link_read_line(line, sizeof(line)))
		obey(line);
	return 1;
}
