/* SPDX-License-Identifier: MIT */
#include "bench.h"

#include <stdlib.h>

int bench_subject_look(struct bench_subject *subject, const char *path)
{
	struct rouse_image *image = NULL;
	struct rouse_image_info info;
	struct rouse_error error = {0};
	int code = rouse_image_open(path, &image, &error);

	*subject = (struct bench_subject){0};
	if (code < 0)
		return report_error(&error, code);
	rouse_image_get_info(image, &info);
	subject->metadata = info.metadata != NULL ? json_loads(info.metadata, 0, NULL) : NULL;
	subject->has_set = info.wset_pages > 0;
	subject->memory_bytes =
		(uint64_t)json_integer_value(json_object_get(subject->metadata, "memory_bytes"));
	if (subject->memory_bytes == 0)
		subject->memory_bytes = info.ram_bytes;
	rouse_image_close(image);
	return EXIT_SUCCESS;
}

int bench_subject_check(const struct bench_subject *subject, bool writable_disks)
{
	const json_t *disks = json_object_get(subject->metadata, "disks");
	const char *file = json_string_value(json_object_get(json_array_get(disks, 0), "file"));

	if (json_array_size(disks) > 0 && !writable_disks) {
		message(MESSAGE_ERROR,
			"the VM can write to %zu of its disks (%s%s): every restore would let it "
			"do so, and end it as a power cut does; the image would no longer fit its "
			"disks. Give QEMU's command behind --, with copies or overlays of them, "
			"and --writable-disks to confirm that those may be written to",
			json_array_size(disks), file != NULL ? file : "no file is known",
			json_array_size(disks) > 1 ? ", ..." : "");
		return EXIT_REFUSED;
	}
	if (!json_is_string(json_object_get(subject->metadata, "vmm")))
		message(MESSAGE_WARNING, "the image does not say which disks its VM has: it will "
					 "be started again and again, and killed");
	if (json_is_false(json_object_get(subject->metadata, "was_running")))
		message(MESSAGE_WARNING, "the VM was paused when it was saved, and stays so: only "
					 "its start is measured");
	return EXIT_SUCCESS;
}

void bench_subject_finish(struct bench_subject *subject)
{
	json_decref(subject->metadata);
	subject->metadata = NULL;
}
