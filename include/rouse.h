/* SPDX-License-Identifier: MIT */
/*
 * librouse: save running virtual machines and wake them so that they are responsive soonest.
 *
 * This is the only public header. How to read it:
 *
 *   1. errors, log, progress, cancelling      what every call shares
 *   2. rouse_save()                           a running VM -> an image
 *   3. rouse_restore()                        an image -> a running VM, and how responsive it was
 *   4. images: open, describe, verify, pack, convert; working sets: merge, compare, convert
 *   5. the metric: rouse_stalls_*()
 *   6. what this machine allows: rouse_doctor()
 *
 * Conventions
 *   - A function returns 0 or a negative errno value. With a `struct rouse_error *`, which may be
 *     NULL, it also fills in what went wrong and what to do about it. Success leaves it untouched.
 *   - Strings and arrays that go in are borrowed for the time of the call. What comes out belongs
 *     to the handle that it came from, unless said otherwise.
 *   - Option structures are filled by their _init function and then changed. New fields are only
 *     added at the end; `size` tells the library which ones the caller knows.
 *   - Times are in microseconds of CLOCK_MONOTONIC, sizes in bytes, unless the name says otherwise.
 *   - A handle may be used by one thread at a time. Different handles are independent: the library
 *     has no global state. It never prints and never exits.
 *   - Traces, scans and restores with the userfaultfd backend stop a thread of QEMU by ptrace(2). A
 *     program whose other threads wait for any child (waitpid(-1, ...), in place of the process ids
 *     that it started, or with __WNOTHREAD) might take the notice of such a stop from the library,
 *     and QEMU stand still: it must not.
 */
#ifndef ROUSE_H
#define ROUSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ROUSE_PUBLIC __attribute__((visibility("default")))
#else
#define ROUSE_PUBLIC
#endif

/** The version of the library, as "MAJOR.MINOR.PATCH". */
ROUSE_PUBLIC const char *rouse_version(void);

/* ---- 1. Errors, log, progress, cancelling ------------------------------------------------- */

/** What sort of failure it was: enough for a program to decide what to do next. */
enum rouse_error_kind {
	ROUSE_ERROR_NONE = 0,
	ROUSE_ERROR_SYSTEM,      /**< a system call failed: disk full, no such file, no memory */
	ROUSE_ERROR_USAGE,       /**< the options do not make sense together */
	ROUSE_ERROR_DAMAGED,     /**< a file is truncated, or a checksum or structure is wrong */
	ROUSE_ERROR_UNSUPPORTED, /**< a newer format, or something that Rouse cannot handle */
	ROUSE_ERROR_MISMATCH,    /**< this image or working set is of another VM, machine or size */
	ROUSE_ERROR_REFUSED,     /**< this machine, user or VM state does not allow it */
	ROUSE_ERROR_VMM,         /**< the VMM died, or answered with an error */
	ROUSE_ERROR_CANCELLED,   /**< rouse_cancel_fire() was called */
};

/** Filled by a failing call. Owned by the caller; zero-initialise it or not, as you like. */
struct rouse_error {
	int code; /**< negative errno value, the same as the call returned */
	enum rouse_error_kind kind;
	char message[496]; /**< one sentence or two, without a newline: what failed, what to do */
};

enum rouse_log_level { ROUSE_LOG_ERROR, ROUSE_LOG_WARNING, ROUSE_LOG_INFO, ROUSE_LOG_DEBUG };

enum rouse_event {
	ROUSE_EVENT_QEMU_STARTED, /**< the text is the path of its QMP socket */
	ROUSE_EVENT_RUNNING,      /**< the guest executes instructions, or could: "paused" */
	ROUSE_EVENT_COMPLETE,     /**< the last page has been delivered */
};

enum rouse_progress_unit {
	ROUSE_PROGRESS_BYTES = 0,
	ROUSE_PROGRESS_MICROSECONDS,
	ROUSE_PROGRESS_SCANS,
};

/** How far a long job is. */
struct rouse_progress {
	const char *phase; /**< for people: "saving", "prefetching", "delivering", "tracing" */
	uint64_t done;
	uint64_t total;                /**< 0 if not known */
	enum rouse_progress_unit unit; /**< of both */
};

struct rouse_cancel;

/** Makes something that ends a running job. Free it with rouse_cancel_free(). -ENOMEM, -EMFILE. */
ROUSE_PUBLIC int rouse_cancel_new(struct rouse_cancel **cancel);
/** Ends the jobs that were given @cancel. From any thread, and from a signal handler. */
ROUSE_PUBLIC void rouse_cancel_fire(struct rouse_cancel *cancel);
ROUSE_PUBLIC void rouse_cancel_free(struct rouse_cancel *cancel);

/**
 * Who watches a job. Every member may be NULL, and so may the pointer to it. The functions are
 * called from the thread that called into the library, except log, which may be called from any.
 */
struct rouse_observer {
	void *user; /**< handed to the functions */
	void (*log)(void *user, enum rouse_log_level level, const char *message);
	void (*progress)(void *user, const struct rouse_progress *progress);
	void (*event)(void *user, enum rouse_event event, const char *text);
	struct rouse_cancel *cancel;
};

/* ---- 2. Saving ------------------------------------------------------------------------------ */

/** How chunks of pages are compressed. */
enum rouse_codec { ROUSE_CODEC_NONE = 0, ROUSE_CODEC_LZ4 = 1, ROUSE_CODEC_ZSTD = 2 };

/** What to do about writable disks of a VM that goes on after its checkpoint. */
enum rouse_disks {
	ROUSE_DISKS_REFUSE = 0, /**< an error, if there are any */
	ROUSE_DISKS_SNAPSHOT,   /**< an overlay for each, all at the checkpoint's point in time */
	ROUSE_DISKS_IGNORE,     /**< the caller sees to them */
};

/** How an image is laid out and packed. */
struct rouse_layout {
	enum rouse_codec codec;
	int level;            /**< of the codec; 0: its default */
	uint32_t chunk_pages; /**< pages in a chunk, 1 to 512; 0: the default, 16 */
	unsigned int threads; /**< that compress; 0: one per processor, 4 at most */
};

/** How a save finds out the working set that it lays the image out for. */
enum rouse_estimate {
	ROUSE_ESTIMATE_NONE = 0,
	ROUSE_ESTIMATE_TRACE, /**< what is touched after the checkpoint (needs keep_running) */
	ROUSE_ESTIMATE_TRACE_BEFORE,   /**< what was touched before it */
	ROUSE_ESTIMATE_SNAPSHOT_ORDER, /**< first writes, by a background snapshot's page order */
	ROUSE_ESTIMATE_SCAN, /**< what scans see after it, as rouse_scan() (needs keep_running) */
	ROUSE_ESTIMATE_SCAN_BEFORE, /**< what scans saw before it */
};

/** What a trace found and what it cost: see rouse_trace(). */
struct rouse_trace_report {
	uint64_t traced_us; /**< from all memory being watched to the end */
	uint64_t pages;     /**< touched */
	uint64_t traced_bytes, untraced_bytes;
	uint64_t stop_us;         /**< one thread stood still for so long at the start */
	uint64_t arm_us;          /**< from the first page moved aside to the last */
	uint64_t arm_pause_us;    /**< the longest that a touch could wait meanwhile */
	uint64_t disarm_us;       /**< until everything was as before */
	uint64_t disarm_pause_us; /**< the longest that a touch could wait meanwhile */
	uint64_t faults;          /**< touches that waited for an answer */
	uint64_t stalled_us;      /**< the sum of what answering them took */
	double service_us;        /**< the mean of it for one */
	double slowdown;        /**< stalled_us by traced_us and threads: an estimate, 0.01: 1 % */
	unsigned int threads;   /**< that touched something */
	uint64_t skipped_pages; /**< not moved aside: pinned, forked, mapped anew, cut short */
	uint64_t copied_pages;  /**< could not be moved back, and were copied */
	uint64_t removed_pages; /**< given back by the process meanwhile (a balloon) */
	uint64_t forks;
	uint64_t lost_pages; /**< touched, but the log was full */
	bool retranslated;   /**< QEMU without KVM was made to read its guest's code again */
};

/**
 * By what a scan sees accesses; docs/estimators.md tells them apart. One that is asked for is taken
 * for all memory that it can watch; other memory is scanned as with ROUSE_SCAN_AUTO.
 */
enum rouse_scan_source {
	/**
	 * Private memory by page_idle if this machine has it, otherwise by writes; shared memory by
	 * presence, and by page_idle where presence is not to be had.
	 */
	ROUSE_SCAN_AUTO,
	ROUSE_SCAN_PAGE_IDLE, /**< the processor's accessed bits: reads and writes, of all memory */
	ROUSE_SCAN_PRESENCE,  /**< page-table entries that come back: reads and writes, of shared */
	ROUSE_SCAN_WRITES,    /**< write protection: writes only, of private memory */
};

/** What a scan found and what it cost: see rouse_scan(). */
struct rouse_scan_report {
	uint64_t scanned_us; /**< from the beginning to the last scan */
	uint32_t scans;
	uint64_t pages;      /**< in the set */
	uint64_t seen_pages; /**< accessed in any scan; the rule may leave some out */
	/** By source: page-table presence (reads and writes), write protection (writes only). */
	uint64_t presence_bytes, writes_only_bytes;
	uint64_t unscanned_bytes; /**< of memory of another kind */
	uint64_t skipped_pages;   /**< of mappings that changed meanwhile */
	uint64_t begin_us;        /**< what it took to begin */
	uint64_t scan_us;         /**< what the scans took, in all */
	double scan_us_per_gib;   /**< the mean for one scan of 1 GiB */
	uint64_t stops, stop_us;  /**< one thread stood still so often, for so long in all */
	uint64_t stop_max_us;     /**< for so long at most */
	bool page_idle;           /**< this machine has page_idle for this user */
	bool retranslated;        /**< as in struct rouse_trace_report */
	uint64_t page_idle_bytes; /**< scanned by page_idle (reads and writes) */
	uint64_t huge_bytes;      /**< of them in huge pages, at most: each is seen as a whole */
	uint64_t unwatched_pages; /**< of them, at most: the kernel could not mark them idle */
};

struct rouse_save_options {
	size_t size;
	const char *qmp_socket; /**< path of the VM's QMP socket */
	const char *image;      /**< path to write; replaced only by a complete image */
	bool keep_running;      /**< the VM goes on after the checkpoint; otherwise QEMU quits */
	bool no_background_snapshot; /**< keep_running by stop, stream and continue */
	enum rouse_disks disks;
	struct rouse_layout layout;
	const char *wset; /**< a working-set file to lay the image out for, or NULL */
	enum rouse_estimate estimate;
	uint64_t estimate_us;    /**< how long to trace; 0: 10 s */
	uint64_t scan_period_us; /**< of an estimate by scans; 0: 1 s */
	uint32_t scan_count;     /**< of scans; 0: 10 */
	enum rouse_scan_source scan_source;
};

struct rouse_save_report {
	uint64_t elapsed_us;
	uint64_t downtime_us; /**< how long the VM stood still; up to the end if it was suspended */
	uint64_t stream_us;   /**< from QEMU's first byte to its last */
	uint64_t ram_bytes;
	uint64_t stored_bytes; /**< of pages in the image, compressed */
	uint64_t image_bytes;
	uint64_t pages, zero_pages, duplicate_pages;
	bool background_snapshot; /**< whether QEMU's background-snapshot was used */
	enum rouse_estimate estimate;
	uint64_t wset_pages; /**< in the estimated working set; 0: there is none, see the log */
	struct rouse_trace_report trace; /**< of an estimate by a trace */
	struct rouse_scan_report scan;   /**< of an estimate by scans */
};

ROUSE_PUBLIC void rouse_save_options_init(struct rouse_save_options *options);

/**
 * Saves the VM behind a QMP socket. If it fails, for whatever reason, there is no file under the
 * final name that was not there before, and the VM runs if it ran before. Two exceptions, which the
 * error tells. A VM that was to be suspended and that another monitor lets run again just when its
 * image is complete is not ended (-EBUSY). And a disk that fails in the last step, the directory's
 * fsync, may not let the new file be taken back.
 *
 * Errors: -ECONNREFUSED, -ENOENT (no VM at that socket), -ETIMEDOUT (QEMU does not answer, or
 * another client holds the socket), -EBUSY (writable disks, a migration is under way, or another
 * monitor let the VM run again while it was to be suspended), -ENOTSUP (something in the VM that
 * cannot be saved), -EFBIG (device state above 256 MiB), -EPERM, -EPIPE (QEMU died before it had
 * sent everything), -EREMOTEIO and -ENOSYS (QEMU refused a command), -EUCLEAN (QEMU's stream or the
 * working set makes no sense), -EINVAL (options that make no sense: kind USAGE; a working set of
 * another VM: kind MISMATCH), -ENOMEM, -ENOSPC and others of the file, -ECANCELED.
 */
ROUSE_PUBLIC int rouse_save(const struct rouse_save_options *options,
	struct rouse_save_report *report, const struct rouse_observer *observer,
	struct rouse_error *error);

/* ---- 3. Restoring --------------------------------------------------------------------------- */

enum rouse_policy {
	ROUSE_POLICY_AUTO = 0, /**< the one with the least predicted TTR: rouse-restore(1) */
	ROUSE_POLICY_EAGER,
	ROUSE_POLICY_LAZY,
	ROUSE_POLICY_WS,
	ROUSE_POLICY_PACED, /**< as ws, but starts as soon as the rest of the set may come later */
	/* How others restore, to compare with; AUTO never takes them: rouse-restore(1). */
	ROUSE_POLICY_REAP,            /**< the set first, then only what is asked for */
	ROUSE_POLICY_FAASNAP,         /**< at once; the set meanwhile */
	ROUSE_POLICY_LAZY_BACKGROUND, /**< at once; all by address meanwhile */
};

#define ROUSE_POLICY_COUNT 8

/** How a VM gets its memory: docs/design.md compares them. */
enum rouse_backend {
	/** Through QEMU's migration, on demand by its postcopy. Works with every QEMU. */
	ROUSE_BACKEND_POSTCOPY = 0,
	ROUSE_BACKEND_MAP, /**< a private mapping of a flat file: rouse_flatten() */
	/**
	 * Past QEMU, by a userfaultfd(2) on its memory that is taken from outside: needs the right
	 * to trace QEMU, and QEMU's to use userfaultfd. Private anonymous RAM only.
	 */
	ROUSE_BACKEND_UFFD,
	ROUSE_BACKEND_AUTO, /**< map if a flat file is given, else postcopy */
};

/** How stalls were seen, from the best to the worst; but THREADS, the latest, is the best. */
enum rouse_stall_method {
	ROUSE_STALLS_REQUESTS = 0, /**< each fault, by its request */
	ROUSE_STALLS_SAMPLES,      /**< the vCPUs' state, a thousand times a second */
	ROUSE_STALLS_NONE,         /**< not at all: TTR is that of the start */
	ROUSE_STALLS_THREADS,      /**< each fault, by its request, and which vCPU had it */
};

/** What limits reading, to be as slow as another disk. 0: no limit. docs/ttr.md has the model. */
struct rouse_throttle {
	uint64_t bytes_per_s;
	uint64_t random_reads_per_s; /**< reads that do not begin where the last one ended */
	uint64_t latency_us; /**< of each such read; reads overlap. A minute at most counts */
};

/** How an image is read. docs/design.md, "How the image is read". */
enum rouse_io {
	ROUSE_IO_AUTO = 0,
	ROUSE_IO_CACHED, /**< through the page cache: many restores of one image read it once */
	ROUSE_IO_DIRECT, /**< past the page cache, with several reads in flight; else as CACHED */
};

#define ROUSE_BACKGROUND_MAX UINT64_MAX
/**
 * As fast as the guest does not feel (docs/design.md, "Pacing"); with policy lazy and those of
 * other systems, as MAX.
 */
#define ROUSE_BACKGROUND_AUTO (UINT64_MAX - 1)

/** A utilization threshold and a window: TTR(U, w). */
struct rouse_ttr_point {
	double utilization; /**< 0 to 1 */
	uint64_t window_us;
};

/**
 * How working sets are merged: docs/estimators.md has the rule. 0 stands for the default of each.
 * Negative numbers, and a decay, keep or forget beyond 1, are refused.
 */
struct rouse_wset_rules {
	uint64_t budget_bytes; /**< the most that the set may have: half of the VM's memory */
	double decay;          /**< what a restore counts when the next one comes: 0.75 */
	double keep;           /**< pages less likely than this are not prefetched: 0.25 */
	double forget;         /**< pages less likely than this are forgotten: 0.05 */
	uint32_t confirm;      /**< restores that must have touched a new page: 2 */
};

struct rouse_restore_options {
	size_t size;
	const char *image;
	enum rouse_policy policy;
	const char *qmp_socket;  /**< of a QEMU that waits (-incoming defer); NULL: start one */
	const char *const *argv; /**< QEMU's command, NULL-terminated; NULL: the one in the image */
	const char *monitor; /**< path for the QMP socket of a QEMU that is started; NULL: chosen */
	/** Bytes/s of pages nobody asked for; 0: off; or ROUSE_BACKGROUND_AUTO, _MAX. */
	uint64_t background;
	const char *wset;      /**< a working set instead of the image's own, or NULL */
	const char *record;    /**< write the first-touch trace to this file, or NULL */
	uint64_t record_us;    /**< for so long nothing is delivered unasked, for a whole trace */
	const char *stall_log; /**< write the stalls, for rouse_stalls_load(), or NULL */
	bool resume;           /**< take over a restore that broke off (needs qmp_socket) */
	bool paused;           /**< leave the VM paused */
	struct rouse_throttle throttle;
	enum rouse_io io;
	struct rouse_ttr_point ttr; /**< the threshold that the report's ttr_us is for */
	const char *learn; /**< prefetch by this working-set file and improve it; made if absent */
	uint64_t learn_us; /**< what is touched in so long after the start is learned: for that time
				nothing is delivered unasked */
	uint32_t learn_sample; /**< leave one page in so many of the set out, to see whether it is
				    used; 0: chosen; ROUSE_LEARN_NO_SAMPLE: none */
	double learn_stale;    /**< below this hit rate the set is stale: 0 to 1 */
	uint64_t learn_seed;   /**< of the random choice of the sample; 0: chosen */
	struct rouse_wset_rules learn_rules;
	/**
	 * ROUSE_BACKEND_AUTO by default. With resume postcopy and uffd are the same: what was begun
	 * with counts.
	 */
	enum rouse_backend backend;
	const char *flat; /**< the flat file to map, or NULL */
};

#define ROUSE_LEARN_NO_SAMPLE UINT32_MAX

#define ROUSE_TTR_UTILIZATIONS 5 /**< 50, 75, 90, 95, 99 % */
#define ROUSE_TTR_WINDOWS 3      /**< 10 ms, 100 ms, 1 s */

struct rouse_percentiles {
	double p50, p90, p99, max; /**< microseconds */
};

/** What a restore with `learn` found out. The estimates: docs/estimators.md. */
struct rouse_learn_report {
	bool learned;        /**< the file was written: the VM ran long enough */
	bool stale;          /**< the hit rate or the coverage is below the options' learn_stale */
	uint32_t runs;       /**< restores that the set has learned from, this one included */
	uint64_t pages;      /**< of the set now */
	uint64_t waiting;    /**< pages that are remembered, but not of the set */
	uint64_t prefetched; /**< pages of the set that was used, the left out ones included, whose
				  first touch was expected within learn_us */
	uint64_t left_out;   /**< of these, those that were left out, at random or in doubt */
	uint64_t sampled;    /**< of these, those that were left out at random */
	uint64_t used;       /**< of these, those that were asked for */
	uint64_t missed;     /**< pages that were touched and not of the set */
	double hit_rate; /**< share of the prefetched pages that was used, estimated; -1: unknown */
	double hit_low, hit_high; /**< its 95 % interval */
	double coverage; /**< share of the touched pages that was of the set; -1: unknown */
};

/**
 * What the time of a restore goes into. The stages belong to several threads and overlap: their sum
 * says nothing, but the one that the others wait for does.
 */
enum rouse_stage {
	ROUSE_STAGE_READ_BULK,   /**< in reads of pages that nobody waits for; throttle included */
	ROUSE_STAGE_READ_URGENT, /**< in reads for pages that the guest asked for */
	ROUSE_STAGE_WAIT_PAGES,  /**< who places waits for pages: reading or decoding is slower */
	ROUSE_STAGE_WAIT_ROOM,   /**< the reader waits for room: decoding or placing is slower */
	ROUSE_STAGE_WAIT_FAULT,  /**< from a request having come until its read begins, tables read
				    included; pages: requests that needed a read */
	ROUSE_STAGE_VERIFY,      /**< checksums; the pages of whole chunks, as below */
	ROUSE_STAGE_DECOMPRESS,
	ROUSE_STAGE_PLACE_PREFETCH,   /**< handing pages to the VMM, before the start */
	ROUSE_STAGE_PLACE_BACKGROUND, /**< those that nobody asked for; not what pacing sleeps */
	ROUSE_STAGE_PLACE_DEMAND,     /**< those that were asked for, and what comes with them */
	ROUSE_STAGE_COUNT
};

/** Time by the clock on the wall, the sum over a stage's threads, and the pages that went through.
 */
struct rouse_stage_time {
	uint64_t ns, pages;
};

struct rouse_restore_report {
	enum rouse_policy policy; /**< the one that was used */
	char policy_reason[160];  /**< of AUTO: why this one, a sentence; empty otherwise */
	/** Of AUTO: what was predicted for each, by enum rouse_policy; 0: none, or not possible. */
	uint64_t predicted_ttr_us[ROUSE_POLICY_COUNT];
	uint64_t start_us; /**< from the request to the first instruction */
	uint64_t ttr_us;   /**< at the options' threshold */
	uint64_t ttr_table_us[ROUSE_TTR_UTILIZATIONS][ROUSE_TTR_WINDOWS];
	uint64_t complete_us; /**< from the request to the last page; 0 if not reached */
	unsigned int vcpus;
	uint64_t faults;
	struct rouse_percentiles fault_us; /**< from request read to page written */
	uint64_t stalled_us;  /**< the sum over vCPUs, the start excluded, transport included */
	int64_t blocktime_us; /**< QEMU's own postcopy-blocktime, the sum over vCPUs; -1: unknown */
	double transport_us;  /**< by it, what a fault waits before and after service; 0: unknown */
	uint64_t prefetched_pages, prefetched_bytes, background_pages;
	uint64_t around_pages;      /**< neighbours of faults, placed with them */
	uint64_t ahead_pages;       /**< where faults follow a pattern: what was to come next */
	uint64_t read_bytes, reads; /**< from the image */
	enum rouse_io io;           /**< what was used: ROUSE_IO_CACHED or ROUSE_IO_DIRECT */
	bool io_uring;              /**< and with several reads in flight */
	uint64_t image_bytes, ram_bytes;
	uint64_t prefetch_place_us; /**< time spent writing the prefetched pages to the VMM */
	int qemu_pid;               /**< of a QEMU that was started; otherwise 0 */
	char monitor[108];          /**< QMP socket of a QEMU that was started */
	bool record_incomplete;     /**< not all touches until its end: pages came
				       unasked, the VM stood still, or it broke off */
	/** While it was recorded each vCPU waited so long for pages, the mean. In as much time a
	 *  VM that need not wait gets further, to pages that the trace lacks. */
	uint64_t record_waited_us;
	/**
	 * How long vCPUs that could run waited for a processor of the host, from the start to the
	 * last page, the sum over them: what a guest feels and TTR does not count. -1: unknown.
	 */
	int64_t vcpu_wait_us;
	double background_rate; /**< bytes/s that were placed unasked, the mean; 0: none */
	struct rouse_stage_time stages[ROUSE_STAGE_COUNT]; /**< by enum rouse_stage */
	struct rouse_learn_report learn;
	/**
	 * The one that was used; an eager restore by QEMU's stream counts as postcopy. With
	 * ROUSE_BACKEND_MAP faults are those for which the kernel had to read something, nothing is
	 * known of how long each took, pages that are "placed" were read into the page cache, and
	 * image_bytes are those of the flat file.
	 */
	enum rouse_backend backend;
	enum rouse_stall_method stall_method;
	uint64_t stall_resolution_us; /**< of ROUSE_STALLS_SAMPLES; otherwise 0 */
	uint64_t device_faults; /**< that were no vCPU's and stalled none; ROUSE_STALLS_THREADS */
	/** Not among the faults: their page came with the background while it was read for them.
	 *  What they waited is counted, up to the moment at which that was noticed. */
	uint64_t overtaken_faults;
};

ROUSE_PUBLIC void rouse_restore_options_init(struct rouse_restore_options *options);

/**
 * Restores a VM and serves it until its last page is in place. The VM is QEMU: one that waits with
 * `-incoming defer` or one that is started; it outlives the call.
 *
 * If this process dies after the VM began to run, or this call fails then, the VM pauses at the
 * next page that it lacks; call again with `resume`, from this process or another one, to take
 * over. A chunk that turns out to be damaged stops the VM. A QEMU that takes no pages is waited for
 * without a limit; the observer's cancel object ends that. With a flat file the VM has all its
 * memory from its start on, and this process may die.
 *
 * Errors: -ENODATA (a policy that needs a working set, and none), -EUCLEAN (damaged),
 * -EPROTONOSUPPORT (newer format), -EINVAL (another machine or size; options that make no sense:
 * kind USAGE; QEMU has multifd or postcopy-preempt on: kind REFUSED), -ENOTSUP (huge pages; backend
 * map: a VM whose memory cannot be mapped from a file; backend uffd: memory that is shared, locked
 * or pinned), -EFBIG (more device state than QEMU takes on demand: only eager works), -EPERM (QEMU
 * may not use userfaultfd: only eager works; backend uffd: QEMU may not be traced), -EBUSY (QEMU
 * waits for nothing, or another Rouse serves it, or there is nothing to take over), -EPIPE (QEMU
 * died), -ETIMEDOUT (QEMU does not answer, or the directory of the file to learn into is kept
 * locked: kind REFUSED), -EREMOTEIO and -ENOSYS (QEMU refused a command), -EPROTO (it asked for
 * what does not exist), -ECANCELED, and what reading a file can give.
 */
ROUSE_PUBLIC int rouse_restore(const struct rouse_restore_options *options,
	struct rouse_restore_report *report, const struct rouse_observer *observer,
	struct rouse_error *error);

/* ---- 4. Images and working sets ------------------------------------------------------------- */

struct rouse_image;

struct rouse_image_info {
	uint32_t version;          /**< of the format */
	uint64_t compat, incompat; /**< feature words */
	unsigned char id[16];
	uint32_t page_size, chunk_pages, block_count;
	uint64_t file_bytes, front_bytes, ram_bytes, device_bytes;
	uint64_t pages, zero_pages, duplicate_pages, chunks, stored_bytes;
	uint64_t wset_pages, wset_stored_bytes;
	const char *metadata; /**< JSON text; docs/format.md has its members */
};

struct rouse_block_info {
	const char *name;
	uint64_t used_bytes;
	uint64_t first_page; /**< its page number, the index over all blocks */
};

/**
 * Opens an image and checks what is at its front. Free it with rouse_image_close().
 * Errors: -EUCLEAN (not an image, damaged, truncated), -EPROTONOSUPPORT (a newer format), -EINVAL
 * (neither a file nor a block device: kind USAGE), -ENOMEM, -ENOENT and others of open(2).
 */
ROUSE_PUBLIC int rouse_image_open(
	const char *path, struct rouse_image **image, struct rouse_error *error);
ROUSE_PUBLIC void rouse_image_close(struct rouse_image *image);
ROUSE_PUBLIC void rouse_image_get_info(
	const struct rouse_image *image, struct rouse_image_info *info);
/** The @index-th RAM block. -ERANGE if there are not so many. */
ROUSE_PUBLIC int rouse_image_get_block(
	const struct rouse_image *image, uint32_t index, struct rouse_block_info *info);

/** One thing that is broken in an image: what it is, and where in the file. */
typedef void rouse_damage_fn(void *user, const char *what, uint64_t offset, uint64_t length);

/**
 * Checks every checksum of an image and that every page leads to stored bytes. @damage is called
 * for each thing that is broken. Returns 0, -EUCLEAN if something was broken, -ECANCELED, or
 * -ENOMEM.
 */
ROUSE_PUBLIC int rouse_image_verify(struct rouse_image *image, rouse_damage_fn *damage,
	void *damage_user, const struct rouse_observer *observer, struct rouse_error *error);

/** Sums up what pack and convert wrote. */
struct rouse_write_report {
	uint64_t elapsed_us, image_bytes, stored_bytes, pages, zero_pages, duplicate_pages,
		wset_pages;
};

/** Lays an image out anew, for the working set in the file @wset, or for none if it is NULL. */
ROUSE_PUBLIC int rouse_pack(const char *image, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error);

/**
 * Turns a plain QEMU migration file into an image, or an image into such a file: what @in is tells
 * which. @wset as for rouse_pack(); only for images.
 */
ROUSE_PUBLIC int rouse_convert(const char *in, const char *wset, const char *out,
	const struct rouse_layout *layout, struct rouse_write_report *report,
	const struct rouse_observer *observer, struct rouse_error *error);

/**
 * Writes the memory of an image to a flat file, for `--backend map`: each page at its place, zero
 * pages as holes, checksums behind them (docs/format.md). The report's stored_bytes are those of
 * the pages that are not zero. -ENOTSUP: the VM's memory is in several blocks, or in huge pages.
 */
ROUSE_PUBLIC int rouse_flatten(const char *image, const char *out,
	struct rouse_write_report *report, const struct rouse_observer *observer,
	struct rouse_error *error);

/** What a flat file says of itself. */
struct rouse_flat_info {
	unsigned char id[16];           /**< of the image that it was made of */
	uint64_t file_bytes, ram_bytes; /**< ram_bytes: of the block that is mapped */
	uint64_t pages, zero_pages;     /**< of all blocks */
	/**
	 * Its time of modification is still that of its making. If not, it was changed, or copied
	 * without that time, and a restore checks all of it first.
	 */
	bool unchanged;
};

/** Reads and checks the file's end, where all that stands. Errors: as rouse_image_open(). */
ROUSE_PUBLIC int rouse_flat_get_info(
	const char *path, struct rouse_flat_info *info, struct rouse_error *error);

/** Checks every page of a flat file: as rouse_image_verify() does an image. */
ROUSE_PUBLIC int rouse_flat_verify(const char *path, rouse_damage_fn *damage, void *damage_user,
	const struct rouse_observer *observer, struct rouse_error *error);

struct rouse_wset;

struct rouse_wset_info {
	uint64_t pages, span_us; /**< the time from the first instruction to the last first touch */
	uint32_t block_count;
	uint64_t ram_bytes;
	/** Any touch would have been seen: nothing was delivered unasked, or left out of a trace.
	 */
	bool complete;
	uint32_t version; /**< of the file format that holds it */
	uint32_t runs;    /**< restores that it comes from */
	uint64_t waiting; /**< pages that are remembered, but not of the set */
	/** Of the latest restore that was learned from, as in struct rouse_learn_report. */
	uint64_t prefetched, sampled, used, missed;
};

/** A page of a working set, and what restores have told of it. */
struct rouse_wset_page_info {
	uint64_t page, time_us; /**< time of first touch since the first instruction, merged */
	int vcpu;               /**< -1: unknown */
	uint32_t count;         /**< restores that were seen to touch it */
	uint32_t looks;         /**< restores in which it could have been seen */
	uint32_t last;          /**< the latest restore that touched it, counted from 1 */
	double weight;          /**< how likely the next restore touches it, 0 to 1 */
	bool waiting;           /**< remembered, but not of the set */
};

/** Opens a working-set file. Errors as rouse_image_open(). */
ROUSE_PUBLIC int rouse_wset_open(
	const char *path, struct rouse_wset **wset, struct rouse_error *error);
ROUSE_PUBLIC void rouse_wset_close(struct rouse_wset *wset);
ROUSE_PUBLIC void rouse_wset_get_info(const struct rouse_wset *wset, struct rouse_wset_info *info);
/** The @index-th RAM block of its VM. -ERANGE if there are not so many. */
ROUSE_PUBLIC int rouse_wset_get_block(
	const struct rouse_wset *wset, uint32_t index, struct rouse_block_info *info);
/** The @index-th page in order of first touch. -ERANGE if there are not so many. */
ROUSE_PUBLIC int rouse_wset_get_page(
	const struct rouse_wset *wset, uint64_t index, uint64_t *page, uint64_t *time_us);
/** The same with its history; behind the set's pages those that wait. -ERANGE. */
ROUSE_PUBLIC int rouse_wset_get_entry(
	const struct rouse_wset *wset, uint64_t index, struct rouse_wset_page_info *entry);

/**
 * Writes a working set to a file, which is replaced when the new one is complete. Others that
 * learn into it meanwhile wait. Errors of the file; -EINVAL: something else stands there;
 * -ETIMEDOUT: somebody else holds the file's directory locked (flock(2)).
 */
ROUSE_PUBLIC int rouse_wset_save(
	const struct rouse_wset *wset, const char *path, struct rouse_error *error);

/**
 * Merges @count working sets of one VM, the oldest first. @rules NULL: the defaults.
 * *merged is the caller's to close. -EINVAL: of different VMs (kind MISMATCH), no set, or rules
 * that make no sense; -ENOMEM.
 */
ROUSE_PUBLIC int rouse_wset_merge(const struct rouse_wset *const *sets, size_t count,
	const struct rouse_wset_rules *rules, struct rouse_wset **merged,
	struct rouse_error *error);
/**
 * The same from files into the file @out, which may be one of them: others that learn into it wait
 * from the reading to the writing. Errors of opening, merging and saving working sets.
 */
ROUSE_PUBLIC int rouse_wset_merge_files(const char *const *files, size_t count,
	const struct rouse_wset_rules *rules, const char *out, struct rouse_wset **merged,
	struct rouse_error *error);

/** How two working sets differ. Pages that wait do not count. */
struct rouse_wset_diff {
	uint64_t pages_a, pages_b, common;
	double recall;    /**< share of A's pages that B has; 1 if A is empty */
	double precision; /**< share of B's pages that A has; 1 if B is empty */
	double kendall;   /**< tau of the order of the common pages, -1 to 1; 1 below two pages */
};

typedef void rouse_wset_diff_fn(void *user, uint64_t page, bool in_a);

/**
 * Compares @b with @a, which is taken for the truth. @only, which may be NULL, is called for each
 * page that only one of them has, in order of page numbers. -EINVAL: of different VMs; -ENOMEM.
 */
ROUSE_PUBLIC int rouse_wset_compare(const struct rouse_wset *a, const struct rouse_wset *b,
	struct rouse_wset_diff *diff, rouse_wset_diff_fn *only, void *user,
	struct rouse_error *error);

/**
 * Reads the text form of a working set (docs/estimators.md). @like: an image or a working-set file
 * of the same VM, for a text that does not say what blocks it has; or NULL.
 * -EUCLEAN: a line makes no sense (it is named); -EINVAL: there are no blocks, or others than in
 * @like; and what opening @like gives.
 */
ROUSE_PUBLIC int rouse_wset_read_text(
	const char *path, const char *like, struct rouse_wset **wset, struct rouse_error *error);
/** Writes it to a descriptor. Pages that wait are left out. Errors of writing; -EINVAL, -ENOMEM. */
ROUSE_PUBLIC int rouse_wset_write_text(
	const struct rouse_wset *wset, int fd, struct rouse_error *error);

/** What rouse_trace() does. Either @pid or @qmp_socket. */
struct rouse_trace_options {
	size_t size;
	int pid;                /**< a process; 0: the QEMU behind qmp_socket */
	const char *qmp_socket; /**< path; NULL: an ordinary process */
	const char *out;        /**< a working-set file to write, or NULL */
	uint64_t duration_us;   /**< 10 s by default */
	uint64_t min_bytes;     /**< of an ordinary process: smaller mappings are left out */
};

ROUSE_PUBLIC void rouse_trace_options_init(struct rouse_trace_options *options);

/**
 * Finds out which pages a live process touches, in the order of first touch, read or written. The
 * process is asked for nothing and loses nothing, also if this one is killed at any moment:
 * docs/estimators.md says why. Linux 6.8 or later (shared memory only: 5.14), x86-64.
 *
 * Errors: -ESRCH (no such process, or it ended), -EPERM (no right to trace it, a debugger has it,
 * seccomp is on it, or it may not use userfaultfd), -EBUSY (it is stopped; its memory has a
 * userfaultfd already: postcopy or background-snapshot), -EALREADY (it is being traced),
 * -ENOTSUP (the kernel, or nothing in it can be traced), -EINVAL (options that make no sense: kind
 * USAGE; more than 1 TiB), -EUCLEAN (the process changed the trace's record), -ETIMEDOUT (the trace
 * does not get on: it ends by itself when it can), -ENOMEM, -ECANCELED, those of rouse_save() for
 * the QMP socket, and of the file.
 */
ROUSE_PUBLIC int rouse_trace(const struct rouse_trace_options *options,
	struct rouse_trace_report *report, const struct rouse_observer *observer,
	struct rouse_error *error);

/**
 * Ends a trace of process @pid, whoever began it, and takes out what a tracer that was killed has
 * left. *found: whether there was anything. -ESRCH, -EPERM, -EBUSY (the process is stopped),
 * -ENOTSUP, -EUCLEAN, -ECANCELED.
 */
ROUSE_PUBLIC int rouse_trace_disarm(
	int pid, bool *found, const struct rouse_observer *observer, struct rouse_error *error);

/** What rouse_scan() does. Either @pid or @qmp_socket. */
struct rouse_scan_options {
	size_t size;
	int pid;                /**< a process; 0: the QEMU behind qmp_socket */
	const char *qmp_socket; /**< path; NULL: an ordinary process */
	const char *out;        /**< a working-set file to write, or NULL */
	uint64_t period_us;     /**< from one scan to the next; 1 s by default */
	uint32_t count;         /**< of scans, 1 to 65535; 10 by default */
	uint64_t min_bytes;     /**< of an ordinary process: smaller mappings are left out */
	/**
	 * The rule. A page's score is the sum of decay^(N-i) over the scans i that saw it, of N;
	 * the set has those with a score of the threshold or more. Default: 1 and 0, all that were
	 * seen. docs/estimators.md has examples.
	 */
	double decay, threshold;
	uint32_t last; /**< instead of them: seen in the last so many scans, 1 to 32; 0: not so */
	enum rouse_scan_source source;
};

ROUSE_PUBLIC void rouse_scan_options_init(struct rouse_scan_options *options);

/**
 * Finds out by scanning, again and again, which pages a live process accesses: in the order of the
 * first scan that saw them, then of their numbers. The process is asked for nothing, waits for
 * nothing and loses nothing, also if this one is killed at any moment: docs/estimators.md says why.
 * Of private memory (QEMU's default) only writes are seen, where the kernel has no page_idle. Linux
 * 6.7 or later, or one with page_idle; x86-64.
 *
 * Errors: -ESRCH (no such process, or it ended), -EPERM (no right to look into it, a debugger has
 * it, seccomp is on it), -EBUSY (it is stopped; its memory has a userfaultfd already: a trace,
 * another scan, postcopy or background-snapshot), -ENOTSUP (the kernel, or nothing in it can be
 * scanned, or not by the source that is asked for), -EINVAL (options that make no sense), -ENOMEM,
 * -ECANCELED, those of rouse_save() for the QMP socket, and of the file.
 */
ROUSE_PUBLIC int rouse_scan(const struct rouse_scan_options *options,
	struct rouse_scan_report *report, const struct rouse_observer *observer,
	struct rouse_error *error);

/** Copies a file to a descriptor through the throttle: for reading beside Rouse at equal terms. */
ROUSE_PUBLIC int rouse_copy(const char *path, int fd, const struct rouse_throttle *throttle,
	const struct rouse_observer *observer, struct rouse_error *error);

/* ---- 5. The metric -------------------------------------------------------------------------- */

struct rouse_stalls;

/**
 * An empty log of stalls of @vcpus vCPUs. Free it with rouse_stalls_free(). -ENOMEM; -EINVAL for 0
 * or more than 4096 vCPUs.
 */
ROUSE_PUBLIC int rouse_stalls_new(unsigned int vcpus, struct rouse_stalls **stalls);
ROUSE_PUBLIC void rouse_stalls_free(struct rouse_stalls *stalls);
/**
 * Adds a stall of one vCPU, in microseconds since the request to restore. At any moment at most
 * `vcpus` of the stalls that cover it count. One of length 0 is accepted and not kept, so the index
 * of rouse_stalls_get_stall() does not count it. -ENOMEM, -EINVAL if it ends before it begins, and
 * for times beyond 2^44 us.
 */
ROUSE_PUBLIC int rouse_stalls_add(struct rouse_stalls *stalls, uint64_t from_us, uint64_t to_us);
/** The @index-th stall in the order in which they were added. -ERANGE if there are not so many. */
ROUSE_PUBLIC int rouse_stalls_get_stall(
	const struct rouse_stalls *stalls, size_t index, uint64_t *from_us, uint64_t *to_us);
/** Reads a stall log, as --stall-log writes it. -EUCLEAN: a line makes no sense (it is named). */
ROUSE_PUBLIC int rouse_stalls_load(
	const char *path, struct rouse_stalls **stalls, struct rouse_error *error);
/** TTR(U, w): docs/ttr.md has the definition. Microseconds. */
ROUSE_PUBLIC uint64_t rouse_stalls_ttr(
	const struct rouse_stalls *stalls, const struct rouse_ttr_point *point);
/** The utilization in [from, from + window], 0 to 1. */
ROUSE_PUBLIC double rouse_stalls_utilization(
	const struct rouse_stalls *stalls, uint64_t from_us, uint64_t window_us);
/** The rows and columns of every table of TTR. */
ROUSE_PUBLIC extern const double rouse_ttr_utilizations[ROUSE_TTR_UTILIZATIONS];
ROUSE_PUBLIC extern const uint64_t rouse_ttr_windows_us[ROUSE_TTR_WINDOWS];

/* ---- 6. What this machine allows ------------------------------------------------------------ */

struct rouse_finding {
	const char *name; /**< "qemu", "userfaultfd", "backend-uffd", "trace", "scan", "kvm",
			     "io_uring", "page_idle", "schedstat", "pagemap", "priority" */
	bool available;
	const char *detail; /**< version, or why not */
	const char *cost;   /**< what its lack costs, and what would allow it; NULL if available */
};

typedef void rouse_finding_fn(void *user, const struct rouse_finding *finding);

/**
 * Probes this machine and calls @finding for each fact. @qemu: the QEMU to ask, NULL for
 * qemu-system-x86_64; @kernel: a kernel to boot under KVM, NULL to run only a few instructions.
 */
ROUSE_PUBLIC int rouse_doctor(const char *qemu, const char *kernel, rouse_finding_fn *finding,
	void *finding_user, struct rouse_error *error);

#ifdef __cplusplus
}
#endif

#endif
