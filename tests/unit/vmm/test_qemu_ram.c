/* SPDX-License-Identifier: MIT */
/* What QEMU's human monitor says of its memory. */
#include "../unit.h"

#include "vmm/qemu_ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void blocks_of_old_qemus_have_no_address(void **state)
{
	static const char text[] =
		"              Block Name    PSize              Offset               Used\n"
		"                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 "
		"0x0000000010000000\n"
		"   0000:00:01.0/vga.vram    4 KiB  0x0000000010080000 0x0000000001000000 "
		"0x0000000001000000\n";
	struct qemu_ram_block *blocks;
	size_t count;

	(void)state;
	assert_int_equal(qemu_ram_parse_blocks(text, &blocks, &count), 0);
	assert_int_equal(count, 2);
	assert_string_equal(blocks[1].name, "0000:00:01.0/vga.vram");
	assert_int_equal(blocks[1].used_bytes, 0x1000000);
	assert_int_equal(blocks[1].host, 0);
	free(blocks);
}

static void blocks_of_new_qemus_have_their_address(void **state)
{
	static const char text[] = "Block Name PSize Offset Used Total HVA RO\n"
				   "pc.ram 4 KiB 0x0 0x10000000 0x20000000 0x00007f1c4be00000 rw\n";
	struct qemu_ram_block *blocks;
	size_t count;

	(void)state;
	assert_int_equal(qemu_ram_parse_blocks(text, &blocks, &count), 0);
	assert_int_equal(count, 1);
	assert_int_equal(blocks[0].used_bytes, 0x10000000);
	assert_int_equal(blocks[0].host, 0x7f1c4be00000);
	free(blocks);
}

/* QEMU 7.2 and 8 with a memory-backend-ram that nothing uses, and a BAR of a VFIO device. */
static void blocks_without_a_name_are_not_of_the_vm(void **state)
{
	static const char *const texts[] = {
		"              Block Name    PSize              Offset               Used"
		"              Total\n"
		"                            4 KiB  0x00000000100e0000 0x0000000001000000"
		" 0x0000000001000000\n"
		"                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000"
		" 0x0000000010000000\n"
		"                            2 MiB  0x00000000110e0000 0x0000000000200000"
		" 0x0000000000200000\n"
		"                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000"
		" 0x0000000000040000\n",
		"              Block Name    PSize              Offset               Used"
		"              Total                HVA  RO\n"
		"                            4 KiB  0x00000000100e0000 0x0000000001000000"
		" 0x0000000001000000 0x00007f1c4ae00000  rw\n"
		"                  pc.ram    4 KiB  0x0000000000000000 0x0000000010000000"
		" 0x0000000010000000 0x00007f1c4be00000  rw\n"
		"                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000"
		" 0x0000000000040000 0x00007f1c5be00000  ro\n"
		"                            1 GiB  0x0000000040000000 0x0000000040000000"
		" 0x0000000040000000 0x00007f1c80000000  rw\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct qemu_ram_block *blocks;
		size_t count;

		assert_int_equal(qemu_ram_parse_blocks(texts[i], &blocks, &count), 0);
		assert_int_equal(count, 2);
		assert_string_equal(blocks[0].name, "pc.ram");
		assert_int_equal(blocks[0].used_bytes, 0x10000000);
		assert_int_equal(blocks[0].host, i == 0 ? 0 : 0x7f1c4be00000);
		assert_string_equal(blocks[1].name, "pc.bios");
		free(blocks);
	}
}

static void a_list_that_makes_no_sense_is_refused(void **state)
{
	static const char *const texts[] = {"", "nothing", "Block Name", "Block Name\npc.ram\n",
		"Block Name\npc.ram 4 KiB 0x0 zz 0x0\n", "Block Name\n4 KiB 0x0 zz 0x0\n",
		"Block Name\npc.ram 4 pages 0x0 0x1000 0x1000\n",
		"Block Name\npc.ram 4 KiB 0x0 0x11111111111111111 0x0\n"};
	struct qemu_ram_block *blocks;
	size_t count;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_int_equal(qemu_ram_parse_blocks(texts[i], &blocks, &count), -EUCLEAN);
}

static bool parse_range(const char *line, struct qemu_ram_range *range)
{
	return qemu_ram_parse_range(line, strlen(line), range);
}

static void ranges_of_memory_are_told_from_devices(void **state)
{
	struct qemu_ram_range range;

	(void)state;
	assert_true(parse_range("  0000000000100000-000000000fffffff (prio 0, ram): pc.ram "
				"@0000000000100000 KVM",
		&range));
	assert_string_equal(range.name, "pc.ram");
	assert_int_equal(range.guest, 0x100000);
	assert_int_equal(range.offset, 0x100000);
	assert_true(
		parse_range("  00000000fffc0000-00000000ffffffff (prio 0, rom): pc.bios", &range));
	assert_int_equal(range.offset, 0);
	assert_false(parse_range(
		"  00000000000a0000-00000000000bffff (prio 1, i/o): vga-lowmem", &range));
	assert_false(parse_range("FlatView #0", &range));
}

static void an_address_is_found_in_the_answer(void **state)
{
	uint64_t address;

	(void)state;
	assert_true(qemu_ram_parse_address(
		"Host virtual address for 0x0 (pc.ram) is 0x7fcecffff000\r\n", &address));
	assert_int_equal(address, 0x7fcecffff000);
	assert_false(qemu_ram_parse_address("Memory at address 0x0is not RAM", &address));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_of_old_qemus_have_no_address),
		cmocka_unit_test(blocks_of_new_qemus_have_their_address),
		cmocka_unit_test(blocks_without_a_name_are_not_of_the_vm),
		cmocka_unit_test(a_list_that_makes_no_sense_is_refused),
		cmocka_unit_test(ranges_of_memory_are_told_from_devices),
		cmocka_unit_test(an_address_is_found_in_the_answer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
