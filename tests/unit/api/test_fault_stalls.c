/* SPDX-License-Identifier: MIT */
/* Whom a fault stalls. */
#include "../unit.h"

#include "api/fault_stalls.h"
#include "ttr/ttr.h"

#define BASE_NS UINT64_C(5000000000)
#define VCPU_A 41u
#define VCPU_B 42u
#define DEVICE 43u
#define KERNEL 99u

struct sum {
	struct rouse_stalls *stalls;
	uint64_t of_none, stalled_us;
	bool by_thread;
};

static struct rouse_fault fault(uint64_t from_us, uint32_t us, uint32_t thread)
{
	return (struct rouse_fault){.asked_ns = BASE_NS + from_us * 1000,
		.service_ns = us * 1000 - 500,
		.thread = thread,
		.of_vmm = thread != 0 && thread != KERNEL};
}

static struct sum add(
	const struct rouse_fault *faults, size_t count, const uint32_t *threads, size_t vcpus)
{
	const struct fault_stalls_config config = {.faults = faults,
		.count = count,
		.requested_ns = BASE_NS,
		.threads = threads,
		.thread_count = threads != NULL ? vcpus : 0};
	struct sum sum = {0};

	assert_int_equal(rouse_stalls_new((unsigned int)vcpus, &sum.stalls), 0);
	assert_int_equal(fault_stalls_add(sum.stalls, &config, &sum.of_none, &sum.by_thread), 0);
	sum.stalled_us = rouse_stalls_stalled_us(sum.stalls, 0, UINT64_MAX);
	rouse_stalls_free(sum.stalls);
	return sum;
}

static void each_vcpu_is_stalled_by_its_own_faults(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_B};
	const struct rouse_fault faults[] = {fault(100, 50, VCPU_A), fault(120, 50, VCPU_B)};
	const struct sum sum = add(faults, 2, threads, 2);

	(void)state;
	assert_int_equal(sum.stalled_us, 100);
	assert_int_equal(sum.of_none, 0);
	assert_true(sum.by_thread);
}

static void a_vcpu_is_not_stalled_twice_at_once(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_B};
	const struct rouse_fault faults[] = {
		fault(100, 50, VCPU_A), fault(140, 50, VCPU_A), fault(150, 10, VCPU_A)};
	const struct sum sum = add(faults, 3, threads, 2);

	(void)state;
	assert_int_equal(sum.stalled_us, 90);
}

static void vcpus_that_share_a_thread_are_all_stalled(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_A, VCPU_A};
	const struct rouse_fault one = fault(100, 50, VCPU_A);

	(void)state;
	assert_int_equal(add(&one, 1, threads, 3).stalled_us, 150);
}

static void a_device_stalls_no_vcpu(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_B};
	const struct rouse_fault faults[] = {fault(100, 50, DEVICE), fault(500, 20, VCPU_B)};
	const struct sum sum = add(faults, 2, threads, 2);

	(void)state;
	assert_int_equal(sum.stalled_us, 20);
	assert_int_equal(sum.of_none, 1);
	assert_true(sum.by_thread);
}

/* As one is by asynchronous page faults of KVM. */
static void a_thread_that_is_not_the_vmms_stalls_one_vcpu(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_B};
	const struct rouse_fault one = fault(100, 50, KERNEL);

	(void)state;
	assert_int_equal(add(&one, 1, threads, 2).stalled_us, 50);
}

static void without_threads_each_fault_stalls_one_vcpu(void **state)
{
	const uint32_t threads[] = {VCPU_A, VCPU_B};
	const struct rouse_fault known[] = {fault(100, 50, VCPU_A), fault(120, 50, DEVICE)};
	const struct rouse_fault unknown[] = {fault(100, 50, 0), fault(120, 50, VCPU_B)};
	struct sum sum = add(known, 2, NULL, 2);

	(void)state;
	assert_int_equal(sum.stalled_us, 100);
	assert_false(sum.by_thread);
	sum = add(unknown, 2, threads, 2);
	assert_int_equal(sum.stalled_us, 100);
	assert_false(sum.by_thread);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_vcpu_is_stalled_by_its_own_faults),
		cmocka_unit_test(a_vcpu_is_not_stalled_twice_at_once),
		cmocka_unit_test(vcpus_that_share_a_thread_are_all_stalled),
		cmocka_unit_test(a_device_stalls_no_vcpu),
		cmocka_unit_test(a_thread_that_is_not_the_vmms_stalls_one_vcpu),
		cmocka_unit_test(without_threads_each_fault_stalls_one_vcpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
