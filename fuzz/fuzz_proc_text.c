/* SPDX-License-Identifier: MIT */
/* Lines of /proc/net/unix, schedstat and stat files: a name that is taken is one that we would
 * give. */
#include "vmm/proc_socket.h"
#include "vmm/qemu_rescue.h"
#include "vmm/vcpu_stalls.h"
#include "vmm/vcpu_wait.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_unix_line(const char *line)
{
	char text[QEMU_RESCUE_TEXT];
	struct qemu_rescue_name name;
	uint64_t inode;

	if (qemu_rescue_parse_line(line, &name, &inode) < 0)
		return;
	qemu_rescue_name_format(&name, text);
	if (inode == 0 || name.pid <= 0 || strstr(line, text) == NULL)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	struct thread_stat stat;
	uint64_t wait_ns = 0, inode;
	const char *path;

	if (text == NULL)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	read_unix_line(text);
	if (proc_socket_parse_listener(text, &inode, &path) && path[0] != '/')
		abort();
	/* Not terminated: what lies behind it must not be read. */
	if (schedstat_parse((const char *)data, size, &wait_ns) == 0 &&
		memchr(data, '\n', size) == NULL && memchr(data, ' ', size) == NULL)
		abort();
	if (thread_stat_parse((const char *)data, size, &stat) == 0 &&
		memchr(data, ')', size) == NULL)
		abort();
	free(text);
	return 0;
}
