/* SPDX-License-Identifier: MIT */
/*
 * Which policy a restore uses: the one that was asked for, or with AUTO the one that is predicted
 * to be responsive soonest (engine/policy_choice.h), on the medium as it shows itself.
 */
#ifndef ROUSE_API_RESTORE_POLICY_H
#define ROUSE_API_RESTORE_POLICY_H

#include "image/image_reader.h"
#include "wset/wset.h"

struct restore_policy_question {
	const struct rouse_restore_options *options;
	struct rouse_reader *reader;
	struct rouse_source *source;
	const struct rouse_wset *set; /* instead of the image's own, or NULL */
	const struct rouse_observer *observer;
};

struct restore_policy_choice {
	enum rouse_policy policy;
	char reason[160]; /* of AUTO, a sentence; empty otherwise */
	uint64_t predicted_us[ROUSE_POLICY_COUNT];
	bool late_is_cheap; /* of PACED: struct rouse_paced_start */
	bool slow_reads;    /* a random read is dear, as far as opening has shown */
};

/**
 * With AUTO or PACED, and no working set that is packed at the front of the image, it reads about 1
 * MiB to see how fast the medium is: some 40 ms on a disk of 100 MB/s. Never fails: what cannot be
 * read is the engine's to say.
 */
void restore_policy_choose(
	const struct restore_policy_question *question, struct restore_policy_choice *choice);

#endif
