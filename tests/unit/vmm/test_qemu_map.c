/* SPDX-License-Identifier: MIT */
/* QEMU's command line for memory from a file, and what pagemap says of a page. */
#include "vmm/qemu_map.h"

#include "../unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct qemu_map_file pc_ram = {
	.path = "/vm/a,b.flat", .machine = "pc-i440fx-7.2", .block = "pc.ram", .bytes = 1 << 30};
static const struct qemu_map_file mem0 = {
	.path = "/f", .machine = "pc-q35-7.2", .block = "/objects/mem0", .bytes = 4096};

#define TEXT_SIZE ((size_t)4096)

/* The rewritten command line, its words with blanks between; "" and *code: why not. */
static const char *rewrite(
	const struct qemu_map_file *file, const char *const *argv, int *code, char *text)
{
	struct qemu_map_command command;
	size_t used = 0;

	text[0] = '\0';
	*code = qemu_map_command(argv, file, &command, NULL);
	for (size_t i = 0; *code == 0 && command.argv[i] != NULL; i++) {
		used += (size_t)snprintf(
			text + used, TEXT_SIZE - used, "%s%s", i > 0 ? " " : "", command.argv[i]);
		assert_true(used < TEXT_SIZE);
	}
	qemu_map_command_finish(&command);
	return text;
}

#define REWRITTEN(file, expected, ...)                                              \
	do {                                                                        \
		const char *const argv_[] = {"qemu", __VA_ARGS__, NULL};            \
		char text_[TEXT_SIZE];                                              \
		int code_;                                                          \
		assert_string_equal(rewrite(file, argv_, &code_, text_), expected); \
		assert_int_equal(code_, 0);                                         \
	} while (0)

#define REFUSED(file, ...)                                               \
	do {                                                             \
		const char *const argv_[] = {"qemu", __VA_ARGS__, NULL}; \
		char text_[TEXT_SIZE];                                   \
		int code_;                                               \
		(void)rewrite(file, argv_, &code_, text_);               \
		assert_int_equal(code_, -ENOTSUP);                       \
	} while (0)

#define PC_OBJECT                                                               \
	"memory-backend-file,id=pc.ram,size=1073741824,mem-path=/vm/a,,b.flat," \
	"share=off,x-use-canonical-path-for-ramblock-id=off"
#define MEM0_OBJECT                                                    \
	"memory-backend-file,id=mem0,size=4096,mem-path=/f,share=off," \
	"x-use-canonical-path-for-ramblock-id=on"

static void default_memory_gets_an_object(void **state)
{
	(void)state;
	REWRITTEN(&pc_ram, "qemu -m 1G -object " PC_OBJECT " -machine memory-backend=pc.ram", "-m",
		"1G");
	REWRITTEN(&pc_ram,
		"qemu -M pc -object rng-random,id=r -object " PC_OBJECT
		" -machine memory-backend=pc.ram",
		"-M", "pc", "-object", "rng-random,id=r");
}

static void an_object_is_replaced_where_it_stands(void **state)
{
	(void)state;
	REWRITTEN(&mem0, "qemu -object " MEM0_OBJECT " -machine q35,memory-backend=mem0 -m 4",
		"-object", "memory-backend-memfd,id=mem0,size=4K,share=on", "-machine",
		"q35,memory-backend=mem0", "-m", "4");
	REWRITTEN(&mem0, "qemu --object " MEM0_OBJECT ",merge=off", "--object",
		"qom-type=memory-backend-file,mem-path=/a,,id=no,id=mem0,merge=off,prealloc=on");
	REWRITTEN(&mem0, "qemu -object " MEM0_OBJECT ",dump=off", "-object",
		"{\"qom-type\": \"memory-backend-ram\", \"id\": \"mem0\", \"size\": 4096, "
		"\"dump\": false}");
}

static void another_object_stays(void **state)
{
	(void)state;
	REWRITTEN(&mem0, "qemu -object memory-backend-ram,id=mem1 -object " MEM0_OBJECT, "-object",
		"memory-backend-ram,id=mem1", "-object", "memory-backend-ram,id=mem0");
}

static void options_that_say_where_memory_is_are_left_out(void **state)
{
	(void)state;
	REWRITTEN(&pc_ram, "qemu -S -object " PC_OBJECT " -machine memory-backend=pc.ram",
		"-mem-path", "/dev/shm", "-mem-prealloc", "-S");
}

static void what_cannot_be_rewritten_is_refused(void **state)
{
	const struct qemu_map_file arm = {
		.path = "/f", .machine = "virt-7.2", .block = "mach-virt.ram", .bytes = 4096};
	const struct qemu_map_file unknown = {.path = "/f", .block = "pc.ram", .bytes = 4096};

	(void)state;
	REFUSED(&arm, "-m", "1");
	REFUSED(&unknown, "-m", "1");
	REFUSED(&pc_ram, "-machine", "pc,memory-backend=elsewhere");
	REFUSED(&pc_ram, "-readconfig", "/etc/vm");
	REFUSED(&mem0, "-object", "memory-backend-ram,id=mem0,host-nodes=0,policy=bind");
	REFUSED(&pc_ram, "-device", "virtio-balloon-pci");
	REFUSED(&pc_ram, "-device", "hv-balloon,id=b");
	REFUSED(&pc_ram, "-device", "{\"driver\": \"virtio-mem-pci\"}");
	REFUSED(&pc_ram, "-device", "vhost-user-fs-pci,chardev=c");
	REFUSED(&pc_ram, "-netdev", "vhost-user,id=n,chardev=c");
}

static void devices_that_give_memory_back_are_refused(void **state)
{
	static const char balloon[] = "\x04\0\0\0\x05\x1b"
				      "0000:00:04.0/virtio-balloon\0\0";
	static const char plain[] = "\x04\0\0\0\x05\x1b"
				    "0000:00:04.0/virtio-net\0\0";

	(void)state;
	assert_int_equal(qemu_map_check_devices(balloon, sizeof(balloon), NULL), -ENOTSUP);
	assert_int_equal(qemu_map_check_devices(plain, sizeof(plain), NULL), 0);
	assert_int_equal(qemu_map_check_devices(NULL, 0, NULL), 0);
}

static void a_page_is_private_if_it_is_there_and_not_the_files(void **state)
{
	(void)state;
	assert_true(qemu_map_is_private(UINT64_C(1) << 63));
	assert_true(qemu_map_is_private(UINT64_C(1) << 62));
	assert_false(qemu_map_is_private(UINT64_C(5) << 61));
	assert_false(qemu_map_is_private(0));
}

/* ---- This process, as if it were QEMU -------------------------------------------------------- */

#define MAPPED 16

static int note_page(void *user, uint64_t index)
{
	*(uint32_t *)user |= UINT32_C(1) << index;
	return 0;
}

static void pages_that_were_written_to_are_found(void **state)
{
	char path[] = "/tmp/rouse-test-XXXXXX";
	struct qemu_map_file file = {.path = path, .bytes = MAPPED * UINT64_C(4096)};
	int fd = mkstemp(path);
	uint32_t pages = 0;
	volatile char *memory;
	struct stat status;

	(void)state;
	assert_true(fd >= 0);
	(void)unlink(path);
	assert_int_equal(ftruncate(fd, (MAPPED + 1) * 4096), 0);
	assert_int_equal(fstat(fd, &status), 0);
	file.inode = status.st_ino;
	memory = mmap(NULL, MAPPED * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	assert_true(memory != MAP_FAILED);
	(void)memory[1 * 4096];
	memory[3 * 4096] = 1;
	memory[15 * 4096 + 5] = 1;
	/* QEMU splits the mapping with madvise(2). */
	(void)madvise((void *)(uintptr_t)(memory + 2 * 4096), 3 * 4096, MADV_DONTDUMP);
	assert_int_equal(qemu_map_private_pages(getpid(), &file, note_page, &pages, NULL), 0);
	assert_int_equal(pages, 1 << 3 | 1 << 15);
	/* A mapping that is too short is not QEMU's memory. */
	file.bytes += 4096;
	assert_int_equal(
		qemu_map_private_pages(getpid(), &file, note_page, &pages, NULL), -EREMOTEIO);
	(void)munmap((void *)(uintptr_t)memory, MAPPED * 4096);
	(void)close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_memory_gets_an_object),
		cmocka_unit_test(an_object_is_replaced_where_it_stands),
		cmocka_unit_test(another_object_stays),
		cmocka_unit_test(options_that_say_where_memory_is_are_left_out),
		cmocka_unit_test(what_cannot_be_rewritten_is_refused),
		cmocka_unit_test(devices_that_give_memory_back_are_refused),
		cmocka_unit_test(a_page_is_private_if_it_is_there_and_not_the_files),
		cmocka_unit_test(pages_that_were_written_to_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
