/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <mntent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static bool is_inside(const char *path, const char *folder)
{
	const size_t length = strlen(folder);

	return strcmp(folder, "/") == 0 || (strncmp(path, folder, length) == 0 &&
						   (path[length] == '/' || path[length] == '\0'));
}

/* Of a whole disk, or of the one that a partition is on; null: the kernel does not say. */
static json_t *rotational(const char *device)
{
	static const char *const places[] = {"queue", "../queue"};
	char *real = realpath(device, NULL);
	const char *slash = real != NULL ? strrchr(real, '/') : NULL;
	int seen = EOF;

	for (size_t i = 0; slash != NULL && seen == EOF && i < 2; i++) {
		char path[256];
		FILE *file;

		(void)snprintf(path, sizeof(path), "/sys/class/block%.100s/%s/rotational", slash,
			places[i]);
		file = fopen(path, "re");
		if (file == NULL)
			continue;
		seen = fgetc(file);
		(void)fclose(file);
	}
	free(real);
	return seen == EOF ? json_null() : json_boolean(seen == '1');
}

/* The last of those that are mounted deepest is the one that is seen. */
static json_t *disk_of(const char *image)
{
	json_t *disk = json_pack("{s:s, s:s}", "filesystem", "unknown", "device", "unknown");
	char *path = realpath(image, NULL);
	FILE *mounts = setmntent("/proc/self/mounts", "re");
	const struct mntent *each;
	size_t deepest = 0;

	while (path != NULL && mounts != NULL && (each = getmntent(mounts)) != NULL) {
		if (!is_inside(path, each->mnt_dir) || strlen(each->mnt_dir) < deepest)
			continue;
		deepest = strlen(each->mnt_dir);
		(void)json_object_set_new(disk, "filesystem", json_string(each->mnt_type));
		(void)json_object_set_new(disk, "device", json_string(each->mnt_fsname));
	}
	if (mounts != NULL)
		(void)endmntent(mounts);
	free(path);
	(void)json_object_set_new(
		disk, "rotational", rotational(json_string_value(json_object_get(disk, "device"))));
	return disk;
}

static json_t *storages_of(const struct bench_plan *plan)
{
	json_t *json = json_object();

	for (unsigned int i = 0; i < plan->storage_count; i++) {
		const struct bench_storage *each = &plan->storages[i];

		(void)json_object_set_new(json, each->name,
			json_string(each->throttle[0] != '\0' ? each->throttle : "as it is"));
	}
	return json;
}

json_t *bench_facts(const char *image, const json_t *metadata, const struct bench_plan *plan)
{
	const json_int_t memory = json_integer_value(json_object_get(metadata, "memory_bytes"));
	const time_t now = time(NULL);
	char date[32] = "";
	struct utsname kernel = {0};
	double load = 0;
	struct tm utc;

	(void)uname(&kernel);
	(void)getloadavg(&load, 1);
	if (gmtime_r(&now, &utc) != NULL)
		(void)strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &utc);
	return json_pack("{s:s, s:i, s:s, s:O?, s:o?, s:O?, s:o, s:o, s:f, s:s}", "rouse",
		rouse_version(), "cpus", (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel",
		kernel.release, "machine", json_object_get(metadata, "machine"), "ram_mb",
		memory > 0 ? json_integer(memory >> 20) : NULL, "vcpus",
		json_object_get(metadata, "vcpus"), "disk", disk_of(image), "storages",
		storages_of(plan), "load", load, "date", date);
}
