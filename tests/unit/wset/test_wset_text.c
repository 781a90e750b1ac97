/* SPDX-License-Identifier: MIT */
/* The text form: there and back, and every line that makes no sense. */
#include "sets.h"

#include "base/error.h"
#include "wset/wset_text.h"

static const char example[] = "# a trace\n"
			      "block 32768 pc.ram\n"
			      "block\t8192\t/rom@etc/acpi tables\n"
			      "complete\n"
			      "\n"
			      "9 1 1\n"
			      "7\t70001  -\n"
			      "0 70000\n";

static struct rouse_wset *parse(const char *text)
{
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};

	if (rouse_wset_text_parse(text, strlen(text), NULL, &wset, &error) < 0)
		fail_msg("%s", error.message);
	return wset;
}

static void lines_become_a_set_in_order_of_time(void **state)
{
	struct rouse_wset *wset = parse(example);

	(void)state;
	assert_int_equal(wset->block_count, 2);
	assert_string_equal(wset->blocks[1].name, "/rom@etc/acpi tables");
	assert_int_equal(wset->blocks[1].used_bytes, 8192);
	assert_int_equal(wset->flags, ROUSE_WSET_FLAG_COMPLETE);
	assert_int_equal(wset->runs, 0);
	assert_int_equal(wset->page_count, 3);
	assert_int_equal(wset->pages[0].page, 9);
	assert_int_equal(wset->pages[0].vcpu, 1);
	assert_int_equal(wset->pages[1].page, 0);
	assert_int_equal(wset->pages[1].vcpu, ROUSE_WSET_VCPU_UNKNOWN);
	assert_int_equal(wset->pages[2].page, 7);
	rouse_wset_close(wset);
}

static void pages_of_one_time_keep_the_order_of_their_lines(void **state)
{
	struct rouse_wset *wset = parse("block 32768 r\n5 0\n3 0\n7 0\n1 0\n");

	(void)state;
	assert_int_equal(wset->pages[0].page, 5);
	assert_int_equal(wset->pages[1].page, 3);
	assert_int_equal(wset->pages[2].page, 7);
	assert_int_equal(wset->pages[3].page, 1);
	rouse_wset_close(wset);
}

static void counts_become_a_history(void **state)
{
	struct rouse_wset *wset = parse("block 32768 r\nruns 8\n5 0 - 8\n3 0 0 2\n7 0\n");

	(void)state;
	assert_int_equal(wset->runs, 8);
	assert_int_equal(wset->pages[0].weight, ROUSE_WSET_WEIGHT_ONE);
	assert_in_range(wset->pages[1].weight, 16383, 16384);
	assert_int_equal(wset->pages[1].count, 2);
	assert_int_equal(wset->pages[1].looks, 8);
	assert_int_equal(wset->pages[2].count, 1);
	rouse_wset_close(wset);
	/* Without `runs`: the largest count is the number of restores. */
	wset = parse("block 32768 r\n5 0 - 3\n3 0 0 2\n");
	assert_int_equal(wset->runs, 3);
	rouse_wset_close(wset);
}

static void written_text_reads_as_the_same_set(void **state)
{
	static const char *const texts[] = {
		example, "block 32768 r\nruns 8\n5 0 - 8\n3 1 0 2\n7 2\n", "block 4096 r\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct rouse_wset *wset = parse(texts[i]), *again;
		char *text = NULL;
		size_t size;

		assert_int_equal(rouse_wset_text_encode(wset, &text, &size, NULL), 0);
		assert_int_equal(strlen(text), size);
		again = parse(text);
		assert_int_equal(again->page_count, wset->page_count);
		assert_int_equal(again->runs, wset->runs);
		assert_int_equal(again->flags, wset->flags);
		assert_int_equal(again->block_count, wset->block_count);
		assert_memory_equal(
			again->blocks, wset->blocks, wset->block_count * sizeof(*wset->blocks));
		assert_memory_equal(
			again->pages, wset->pages, wset->page_count * sizeof(*wset->pages));
		free(text);
		rouse_wset_close(wset);
		rouse_wset_close(again);
	}
}

static void senseless_line_is_named(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{"block 32768 r\n5\n", "line 2: a page is"},
		{"block 32768 r\n5 0 0 1 1\n", "line 2: a page is"},
		{"block 32768 r\n\n# x\n5x 0\n", "line 4: the page number"},
		{"block 32768 r\n99999999999999999999 0\n", "line 2: the page number"},
		{"block 32768 r\n5 -1\n", "line 2: the time"},
		{"block 32768 r\n5 4294967296\n", "line 2: the time"},
		{"block 32768 r\n5 1.5\n", "line 2: the time"},
		{"block 32768 r\n5 0 65535\n", "line 2: the vCPU"},
		{"block 32768 r\n5 0 x\n", "line 2: the vCPU"},
		{"block 32768 r\n5 0 - 0\n", "line 2: the count"},
		{"block 32768 r\n5 0 - 65536\n", "line 2: the count"},
		{"block 32768 r\n8 0\n", "line 2: the page is outside"},
		{"block 32768 r\n5 0\n6 1\n5 2\n", "line 4: the page is there twice"},
		{"block 32768 r\nruns 2\n5 0 - 3\n", "line 3: more restores"},
		{"block 32768 r\nruns 0\n", "line 2: the number of runs"},
		{"block 32768 r\nruns\n", "line 2: neither"},
		{"block 32768 r\nruns 1 2\n", "line 2: neither"},
		{"block 32768 r\ncomplete yes\n", "line 2: neither"},
		{"block 32768 r\n+5 0\n", "line 2: neither"},
		{"block 32768 r\n5 0\nblock 4096 s\n", "line 3: behind the first page"},
		{"block 32767 r\n", "line 1: a block"},
		{"block 32768\n", "line 1: a block"},
		{"block r 32768\n", "line 1: a block"},
		{"block 17592186044416 r\nblock 4096 s\n", "line 2: the VM is beyond"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct rouse_wset *wset = NULL;
		struct rouse_error error = {0};

		assert_int_equal(rouse_wset_text_parse(
					 cases[i].text, strlen(cases[i].text), NULL, &wset, &error),
			-EUCLEAN);
		assert_null(wset);
		if (strstr(error.message, cases[i].message) == NULL)
			fail_msg("\"%s\" does not say \"%s\"", error.message, cases[i].message);
	}
}

static void nul_and_endless_line_are_refused(void **state)
{
	char text[600];
	struct rouse_wset *wset = NULL;
	struct rouse_error error = {0};

	(void)state;
	memset(text, '1', sizeof(text));
	assert_int_equal(rouse_wset_text_parse(text, sizeof(text), NULL, &wset, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "line 1: it is too long"));
	assert_int_equal(rouse_wset_text_parse("# a\n#\0b\n", 8, NULL, &wset, &error), -EUCLEAN);
	assert_non_null(strstr(error.message, "line 2: there is a NUL"));
}

static void blocks_come_from_another_set_of_the_vm(void **state)
{
	struct rouse_wset *like = make_set(0, 3, 1), *wset = NULL;
	struct rouse_error error = {0};

	(void)state;
	assert_int_equal(rouse_wset_text_parse("5 0\n", 4, NULL, &wset, &error), -EINVAL);
	assert_non_null(strstr(error.message, "--like"));
	assert_int_equal(rouse_wset_text_parse("5 0", 3, like, &wset, &error), 0);
	assert_int_equal(wset->block_count, 1);
	assert_string_equal(wset->blocks[0].name, "pc.ram");
	assert_int_equal(wset->page_count, 1);
	rouse_wset_close(wset);
	wset = NULL;
	assert_int_equal(
		rouse_wset_text_parse(example, strlen(example), like, &wset, &error), -EINVAL);
	assert_int_equal(error.kind, ROUSE_ERROR_MISMATCH);
	rouse_wset_close(like);
}

static void name_that_would_break_the_line_is_refused(void **state)
{
	struct rouse_wset *wset = make_set(0, 3, 1);
	char *text = NULL;
	size_t size;

	(void)state;
	memcpy(wset->blocks[0].name, "a\nb", 4);
	assert_int_equal(rouse_wset_text_encode(wset, &text, &size, NULL), -EINVAL);
	rouse_wset_close(wset);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_become_a_set_in_order_of_time),
		cmocka_unit_test(pages_of_one_time_keep_the_order_of_their_lines),
		cmocka_unit_test(counts_become_a_history),
		cmocka_unit_test(written_text_reads_as_the_same_set),
		cmocka_unit_test(senseless_line_is_named),
		cmocka_unit_test(nul_and_endless_line_are_refused),
		cmocka_unit_test(blocks_come_from_another_set_of_the_vm),
		cmocka_unit_test(name_that_would_break_the_line_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
