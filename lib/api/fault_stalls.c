/* SPDX-License-Identifier: MIT */
#include "api/fault_stalls.h"

#include "base/cleanup.h"

#include <errno.h>

struct adding {
	struct rouse_stalls *stalls;
	const struct fault_stalls_config *config;
	uint64_t *ends_us; /* for each vCPU: when its last stall ended */
};

/*
 * A vCPU has one fault after the other. What is rounded, and the way there and back, may make two
 * overlap: it is not stalled twice.
 */
static int add_of_vcpu(const struct adding *a, size_t vcpu, uint64_t from_us, uint64_t to_us)
{
	if (from_us < a->ends_us[vcpu])
		from_us = a->ends_us[vcpu];
	if (to_us <= from_us)
		return 0;
	a->ends_us[vcpu] = to_us;
	return rouse_stalls_add(a->stalls, from_us, to_us);
}

/* How many vCPUs have that thread, each with its stall; or the failure. */
static int add_of_thread(const struct adding *a, uint32_t thread, uint64_t from_us, uint64_t to_us)
{
	int vcpus = 0;

	for (size_t i = 0; i < a->config->thread_count; i++) {
		int code;

		if (a->config->threads[i] != thread)
			continue;
		code = add_of_vcpu(a, i, from_us, to_us);
		if (code < 0)
			return code;
		vcpus++;
	}
	return vcpus;
}

/* How many vCPUs it has stalled, or the failure. */
static int add_fault(const struct adding *a, const struct rouse_fault *fault)
{
	const struct fault_stalls_config *config = a->config;
	const uint64_t from_us = fault->asked_ns > config->requested_ns
					 ? (fault->asked_ns - config->requested_ns) / 1000
					 : 0;
	/* Rounded up: a stall is never lost, only made longer by less than 1 us. */
	const uint64_t to_us = from_us + (fault->service_ns + config->transport_ns) / 1000 + 1;
	int vcpus = 0, code;

	if (config->threads != NULL && fault->thread != 0)
		vcpus = add_of_thread(a, fault->thread, from_us, to_us);
	if (vcpus != 0)
		return vcpus;
	if (config->threads != NULL && fault->thread != 0 && fault->of_vmm)
		return 0;
	code = rouse_stalls_add(a->stalls, from_us, to_us);
	return code < 0 ? code : 1;
}

int fault_stalls_add(struct rouse_stalls *stalls, const struct fault_stalls_config *config,
	uint64_t *of_none, bool *by_thread)
{
	cleanup_free uint64_t *ends_us = calloc(config->thread_count + 1, sizeof(*ends_us));
	const struct adding adding = {.stalls = stalls, .config = config, .ends_us = ends_us};

	*of_none = 0;
	*by_thread = config->threads != NULL;
	if (ends_us == NULL)
		return -ENOMEM;
	for (uint64_t i = 0; i < config->count; i++) {
		int vcpus = add_fault(&adding, &config->faults[i]);

		if (vcpus < 0)
			return vcpus;
		*of_none += vcpus == 0;
		*by_thread = *by_thread && config->faults[i].thread != 0;
	}
	return 0;
}
