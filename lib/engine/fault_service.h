/* SPDX-License-Identifier: MIT */
/*
 * Answers the guest's page faults, on a thread of its own, and keeps the log of them.
 *
 *   sink.wait_fault -> locate -> (read, verify, decompress up to the page | chunk cache)
 *     -> sink.place urgent -> (decompress the rest) -> around, ahead
 *
 * Fault-around: the page's neighbours that were read with it are placed behind it (fault_span.h).
 * They are there already, a guest touches neighbours together, and fetching them later would cost
 * a read again. So are the zero neighbours of a zero page. Read-ahead: where faults come in
 * sequence or in steps, what will be asked for next is read and placed as well (fault_pattern.h,
 * fault_ahead.h).
 *
 * The path allocates, formats and logs nothing (invariant 4): the logs are reserved for one fault
 * per page, buffers are made before; only a page table that is not there yet is read and kept.
 */
#ifndef ROUSE_ENGINE_FAULT_SERVICE_H
#define ROUSE_ENGINE_FAULT_SERVICE_H

#include "engine/stage_clock.h"
#include "image/image_reader.h"
#include "sink/sink.h"

/** A fault: when its request had been read, and how long it took until the page was written. */
struct rouse_fault {
	uint64_t asked_ns; /* CLOCK_MONOTONIC */
	uint32_t page;
	uint32_t service_ns; /* saturates */
	uint32_t thread;     /* that waited, and whether it was the VMM's: see sink.h */
	bool of_vmm;
};

struct rouse_fault_service;

/**
 * Starts the thread. The reader, source and sink are the caller's. @around: with fault-around
 * and read-ahead; without them only what the guest asks for is placed. @stages counts; it may be
 * NULL. -ENOMEM, -EAGAIN.
 */
int rouse_fault_service_start(struct rouse_reader *reader, struct rouse_source *source,
	struct rouse_sink *sink, bool around, struct stage_clock *stages,
	struct rouse_fault_service **service);

/**
 * A random read is dear, as far as anybody can tell: so the first ones bring neighbours along, too,
 * until they show how long they take. Any thread.
 */
void rouse_fault_service_expect_slow_reads(struct rouse_fault_service *service);

/**
 * Whether it has ended, waiting up to @timeout_ms (-1: for ever): 0 while it runs; -ESHUTDOWN: the
 * guest needs nothing more; -EUCLEAN: a chunk is damaged (*damaged says which; a table:
 * ROUSE_FEEDER_NO_CHUNK), its page was not delivered; the sink's and the source's errors.
 */
int rouse_fault_service_wait(
	struct rouse_fault_service *service, int timeout_ms, uint64_t *damaged);

/** Faults so far. Once the service has ended, the log of them: it stays the service's. */
uint64_t rouse_fault_service_count(const struct rouse_fault_service *service);
const struct rouse_fault *rouse_fault_service_log(const struct rouse_fault_service *service);
/**
 * Faults whose page came otherwise while it was read for them, with the background: somebody has
 * waited all the same. Their service_ns is the time until that was noticed, which is never too
 * short. They are not in the log of the others; a page may be here twice, for two threads. How many
 * there are, and *log, the service's, once it has ended.
 */
uint64_t rouse_fault_service_overtaken(
	const struct rouse_fault_service *service, const struct rouse_fault **log);
/** Pages placed that are not zero, neighbours included: what the background need not deliver. */
uint64_t rouse_fault_service_stored_count(const struct rouse_fault_service *service);
/** Pages that fault-around has placed, and read-ahead. */
uint64_t rouse_fault_service_around_count(const struct rouse_fault_service *service);
uint64_t rouse_fault_service_ahead_count(const struct rouse_fault_service *service);

/**
 * Where a fault is being served, or was: the locator of the last chunk that is read for it. Once
 * for each read; 0: none since the last call. Any thread.
 */
uint64_t rouse_fault_service_take_read(struct rouse_fault_service *service);

/**
 * Interrupts the sink and joins the thread: from here on the count and the log stay as they are.
 * Fine to call again.
 */
void rouse_fault_service_end(struct rouse_fault_service *service);
/** The same, and frees everything. NULL is fine. */
void rouse_fault_service_stop(struct rouse_fault_service *service);

#endif
