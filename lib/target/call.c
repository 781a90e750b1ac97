/* SPDX-License-Identifier: MIT */
/*
 * System calls in another process. The order of the steps is what makes it safe to be killed at
 * any of them; docs/estimators.md says for each what becomes of the thread then.
 *
 *	target_stop   SEIZE, INTERRUPT, wait      nothing is changed: it goes on
 *	target_call   write the frame             below its stack, where nothing lives
 *	              SETREGS                     from here on it makes the call, and returns by
 *	                                          rt_sigreturn into what it was
 *	              SETSIGMASK (all blocked)    rt_sigreturn puts the mask back, too
 *	              run a getpid(2)             as above
 *	              SETREGS, run the call       as above
 *	              SETSIGMASK, SETREGS         as it was
 *	target_go     DETACH
 */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/io.h"
#include "target/target_private.h"

#include <elf.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifdef __x86_64__

#define RED_ZONE 128u
#define STACK_SPARE 4096u /* that must be left below a frame */
/* So often it is tried; between two, so long; and while it waits for a disk: five seconds in all.
 */
#define STOP_ATTEMPTS 200u
#define STOP_NAP_NS 1000000
#define DEEP_NAP_NS 25000000
#define STOP_TIMEOUT_NS UINT64_C(20000000)
#define CODE_SEGMENT_64 0x33u
#define LOCK_TIMEOUT_NS UINT64_C(5000000000)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define CALL_ATTEMPTS 100u /* of a call that signals interrupt */
/* A call begins within microseconds, unless its thread gets no processor. */
#define BEGIN_TIMEOUT_NS UINT64_C(5000000000)
#define BEGIN_AGAIN_TIMEOUT_NS UINT64_C(50000000) /* once one has not begun */
#define BEGIN_SPIN_NS 30000                       /* looked at without a nap: the usual case */
#define BEGIN_SHORT_NS 10000000                   /* and so long with short naps */
#define XSTATE_ROOM 16384u
#define MAX_STAT_BYTES 4096u

/* What a system call that was interrupted returns inside the kernel (include/linux/errno.h). */
#define KERNEL_ERESTARTSYS (-512)
#define KERNEL_ERESTARTNOINTR (-513)
#define KERNEL_ERESTARTNOHAND (-514)
#define KERNEL_ERESTART_RESTARTBLOCK (-516)

/* waitpid(2) with a limit: a thread may be where it cannot stop. -ETIMEDOUT, -ESRCH. */
static int wait_stop(int tid, int *status)
{
	const uint64_t limit_ns = rouse_clock_ns() + STOP_TIMEOUT_NS;

	for (;;) {
		const struct timespec nap = {.tv_nsec = 20000};
		pid_t got = waitpid(tid, status, __WALL | WNOHANG);

		if (got == tid)
			return WIFSTOPPED(*status) ? 0 : -ESRCH;
		if (got < 0 && errno != EINTR)
			return -ESRCH;
		if (rouse_clock_ns() > limit_ns)
			return -ETIMEDOUT;
		(void)nanosleep(&nap, NULL);
	}
}

static bool is_event_stop(int status)
{
	return status >> 16 == PTRACE_EVENT_STOP;
}

/* Of a thread that stopped at an event: whether because it was asked to, not by SIGSTOP. */
static bool is_our_stop(int status)
{
	return is_event_stop(status) && WSTOPSIG(status) == SIGTRAP;
}

/*
 * Waits for the stop that PTRACE_INTERRUPT asked for. A signal that arrives before is let through.
 * -EBUSY: it is stopped by SIGSTOP, or does not stop in time.
 */
static int wait_interrupted(int tid)
{
	for (;;) {
		int status, code = wait_stop(tid, &status);

		if (code < 0)
			return code == -ETIMEDOUT ? -EBUSY : code;
		if (is_our_stop(status))
			return 0;
		if (is_event_stop(status))
			return -EBUSY;
		if (ptrace(PTRACE_CONT, tid, NULL, (long)WSTOPSIG(status)) < 0)
			return -errno;
	}
}

/* waitpid(2) without a limit. A signal to us does not end it: the caller's program has timers. */
static bool wait_stopped(int tid, int *status)
{
	pid_t got;

	do
		got = waitpid(tid, status, __WALL);
	while (got < 0 && errno == EINTR);
	return got == tid && WIFSTOPPED(*status);
}

/*
 * Lets go of a thread. Only a stopped one can be: one that did not stop in time is still asked to,
 * and will. That is waited for however long it takes: left alone it would stop for good.
 */
static void let_go(int tid)
{
	int status;

	if (ptrace(PTRACE_DETACH, tid, NULL, NULL) == 0)
		return;
	while (wait_stopped(tid, &status)) {
		const long signal = is_event_stop(status) ? 0 : WSTOPSIG(status);

		if (ptrace(PTRACE_DETACH, tid, NULL, signal) == 0)
			return;
	}
}

/*
 * What the kernel would do with a system call that was interrupted, when the thread goes on: it
 * does so only on the way out of the stop, and not after another call. RESTART_BLOCK: a call of
 * restart_syscall(2) goes on with the old one; after an rt_sigreturn(2) it gives EINTR instead.
 */
static void emulate_restart(struct user_regs_struct *registers)
{
	const long long was = (long long)registers->orig_rax;

	if (was < 0)
		return;
	switch ((long long)registers->rax) {
	case KERNEL_ERESTARTSYS:
	case KERNEL_ERESTARTNOINTR:
	case KERNEL_ERESTARTNOHAND:
		registers->rax = registers->orig_rax;
		registers->rip -= 2;
		break;
	case KERNEL_ERESTART_RESTARTBLOCK:
		registers->rax = 219; /* restart_syscall */
		registers->rip -= 2;
		break;
	default:
		break;
	}
	registers->orig_rax = (unsigned long long)-1;
}

/*
 * A restartable sequence (rseq(2)) would be taken up again in its middle, when the kernel has
 * looked only at the address of our call. They contain no system calls.
 */
static bool may_be_in_rseq(int tid, const struct user_regs_struct *registers)
{
#ifdef PTRACE_GET_RSEQ_CONFIGURATION
	struct __ptrace_rseq_configuration rseq = {0};
	uint64_t critical = 0;
	struct iovec here = {&critical, sizeof(critical)}, there;

	if ((long long)registers->orig_rax >= 0)
		return false;
	if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof(rseq), &rseq) < 0)
		return errno != EIO && errno != EINVAL;
	if (rseq.rseq_abi_pointer == 0)
		return false;
	there = (struct iovec){(void *)(uintptr_t)(rseq.rseq_abi_pointer + 8), sizeof(critical)};
	if (process_vm_readv(tid, &here, 1, &there, 1, 0) != sizeof(critical))
		return true;
	return critical != 0;
#else
	return (long long)registers->orig_rax < 0;
#endif
}

/*
 * The mapping that a stack pointer is in, if it looks like a stack with room: the kernel's own
 * [stack], or one with a guard below it. A stack on some heap (Go's) has others' memory below.
 */
static bool find_stack(const struct target_map *maps, size_t count, uint64_t pointer, uint64_t *low)
{
	for (size_t i = 0; i < count; i++) {
		const struct target_map *map = &maps[i];
		bool guarded = i > 0 && maps[i - 1].end == map->start && !maps[i - 1].read &&
			       !maps[i - 1].write;

		if (pointer < map->start || pointer > map->end)
			continue;
		if (!map->write || map->shared || map->inode != 0)
			return false;
		if (!guarded && strcmp(map->name, "[stack]") != 0)
			return false;
		*low = map->start;
		return pointer - map->start > TARGET_FRAME_MAX + RED_ZONE + STACK_SPARE;
	}
	return false;
}

/*
 * Whether a thread is in the middle of a call of a Rouse that was killed. It will have made it when
 * it comes to run: only then is known what there is in the process.
 */
static bool is_calling(const struct target *target, uint64_t rip)
{
	return rip - target->gadgets.syscall <= 2 || rip - target->gadgets.sigreturn <= 9;
}

/* Whether the thread stands where a call can be made; then what is needed for it is noted. */
static bool note_thread(struct target *target, int tid, const struct target_map *maps, size_t count)
{
	struct user_regs_struct registers;

	if (ptrace(PTRACE_GETREGS, tid, NULL, &registers) < 0 || registers.cs != CODE_SEGMENT_64 ||
		is_calling(target, registers.rip) ||
		!find_stack(maps, count, registers.rsp, &target->stack_low) ||
		may_be_in_rseq(tid, &registers))
		return false;
	if (ptrace(PTRACE_GETSIGMASK, tid, sizeof(target->signal_mask), &target->signal_mask) < 0)
		return false;
	emulate_restart(&registers);
	target->registers = registers;
	return true;
}

/*
 * Whether a thread waits in the kernel for what no signal ends (state D): for a disk, say. Asked to
 * stop it would do so some day, and could not be let go of before.
 */
static bool is_deep_in_kernel(const struct target *target, int tid)
{
	cleanup_free char *text = NULL;
	const char *state;
	char path[64];
	size_t size;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", target->pid, tid);
	if (rouse_io_read_file(path, MAX_STAT_BYTES, &text, &size) < 0)
		return false;
	state = strrchr(text, ')'); /* "TID (NAME) STATE ...", and a name may have anything */
	return state != NULL && strncmp(state, ") D", 3) == 0;
}

/*
 * Whoever stopped us now (Ctrl-Z, a terminal that we may not write to) would keep the thread still,
 * too, until we go on. So these signals wait. They do so for this thread: how the other threads of
 * this process take them is not ours to say.
 */
static void hold_stop_signals(struct target *target)
{
	static const int numbers[] = {SIGTSTP, SIGTTIN, SIGTTOU};
	sigset_t set, before;

	(void)sigemptyset(&set);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		(void)sigaddset(&set, numbers[i]);
	(void)sigemptyset(&before);
	(void)pthread_sigmask(SIG_BLOCK, &set, &before);
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (sigismember(&before, numbers[i]) == 1)
			(void)sigdelset(&set, numbers[i]);
	}
	target->held_signals = set;
}

static void release_stop_signals(const struct target *target)
{
	(void)pthread_sigmask(SIG_UNBLOCK, &target->held_signals, NULL);
}

/* 0, -EBUSY (in a moment, maybe), or what it fails for. */
static int seize_thread(struct target *target, int tid, const struct target_map *maps, size_t count)
{
	int code;

	if (ptrace(PTRACE_SEIZE, tid, NULL, (long)PTRACE_O_TRACESYSGOOD) < 0)
		return -errno;
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0)
		code = -errno;
	else
		code = wait_interrupted(tid);
	if (code == 0 && !note_thread(target, tid, maps, count))
		code = -EBUSY;
	if (code < 0) {
		let_go(tid);
		return code;
	}
	target->tid = tid;
	target->is_late = false;
	return 0;
}

static int stop_thread(struct target *target, int tid, const struct target_map *maps, size_t count)
{
	int code;

	if (is_deep_in_kernel(target, tid))
		return -EBUSY;
	hold_stop_signals(target);
	code = seize_thread(target, tid, maps, count);
	if (code < 0)
		release_stop_signals(target);
	return code;
}

/* What can be seen to speak against it before anything is stopped. */
static int check_status(const struct target *target, struct rouse_error *error)
{
	char value[64];
	int code;

	code = target_status(target, "State", value, sizeof(value));
	if (code == 0 && value[0] == 'X')
		code = -ESRCH;
	if (code < 0)
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended", target->pid);
	if (target_status(target, "TracerPid", value, sizeof(value)) == 0 &&
		strcmp(value, "0") != 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"process %d is being debugged by process %s: end that first", target->pid,
			value);
	if (target_status(target, "State", value, sizeof(value)) == 0 && value[0] == 'T')
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
			"process %d is stopped (SIGSTOP): let it go on first", target->pid);
	if (target_status(target, "Seccomp", value, sizeof(value)) == 0 && strcmp(value, "0") != 0)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EPERM,
			"process %d is under a seccomp filter (QEMU's -sandbox), which could kill "
			"it",
			target->pid);
	if (target_status(target, "x86_Thread_features", value, sizeof(value)) == 0 &&
		strstr(value, "shstk") != NULL)
		return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
			"process %d has a shadow stack", target->pid);
	return 0;
}

static int refuse_stop(const struct target *target, int tid, int code, struct rouse_error *error)
{
	if (code == -EBUSY && is_deep_in_kernel(target, tid))
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"the first thread of process %d stands still in the kernel (state D), and "
			"cannot be stopped there: it waits for a disk or a file server",
			target->pid);
	if (code == -EPERM)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"process %d may not be traced: run as its user with "
			"kernel.yama.ptrace_scope=0, or as root; no debugger may have it",
			target->pid);
	if (code == -EBUSY)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"the first thread of process %d cannot be stopped safely now: try again",
			target->pid);
	return rouse_error_errno(error, code, "cannot stop a thread of process %d", target->pid);
}

/* One of us at a time: what is found out about a process is then true until target_go(). */
static int lock(struct target *target, struct rouse_error *error)
{
	const uint64_t limit_ns = rouse_clock_ns() + LOCK_TIMEOUT_NS;
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d", target->pid);
	target->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (target->lock < 0)
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, -ESRCH, "process %d has ended", target->pid);
	while (flock(target->lock, LOCK_EX | LOCK_NB) < 0) {
		const struct timespec nap = {.tv_nsec = 1000000};

		if (errno != EWOULDBLOCK && errno != EINTR)
			return rouse_error_errno(error, -errno, "cannot lock %s", path);
		if (rouse_clock_ns() > limit_ns)
			return rouse_error_set(error, ROUSE_ERROR_REFUSED, -EBUSY,
				"another Rouse is busy in process %d", target->pid);
		(void)nanosleep(&nap, NULL);
	}
	return 0;
}

static void unlock(struct target *target)
{
	if (target->lock >= 0)
		(void)close(take_fd(&target->lock));
}

/* The first thread, or if that has ended (pthread_exit(3)) the oldest one. */
static int find_thread(const struct target *target, struct rouse_error *error)
{
	cleanup_free int *tids = NULL;
	size_t count;
	char value[64];
	int code;

	if (target_status(target, "State", value, sizeof(value)) == 0 && value[0] != 'Z')
		return target->pid;
	code = target_threads(target, &tids, &count, error);
	if (code < 0)
		return code;
	return count > 1 ? tids[1] : target->pid;
}

static int find_and_stop(struct target *target, struct rouse_error *error)
{
	cleanup_free struct target_map *maps = NULL;
	size_t map_count = 0;
	int tid = 0, code = check_status(target, error);

	if (code == 0)
		code = target_find_gadgets(target, error);
	if (code == 0)
		code = target_maps(target, &maps, &map_count, error);
	if (code == 0) {
		tid = find_thread(target, error);
		code = tid < 0 ? tid : 0;
	}
	if (code < 0)
		return code;
	code = -EBUSY;
	for (unsigned int attempt = 0; code == -EBUSY && attempt < STOP_ATTEMPTS; attempt++) {
		struct timespec nap = {.tv_nsec = STOP_NAP_NS};

		code = stop_thread(target, tid, maps, map_count);
		if (code == -EBUSY && is_deep_in_kernel(target, tid))
			nap.tv_nsec = DEEP_NAP_NS;
		if (code == -EBUSY)
			(void)nanosleep(&nap, NULL);
	}
	return code == 0 ? 0 : refuse_stop(target, tid, code, error);
}

int target_stop(struct target *target, struct rouse_error *error)
{
	int code = lock(target, error);

	if (code == 0)
		code = find_and_stop(target, error);
	if (code < 0)
		unlock(target);
	return code;
}

void target_go(struct target *target)
{
	const bool was_stopped = target->tid != 0;

	if (was_stopped)
		let_go(target->tid);
	target->tid = 0;
	unlock(target);
	/* Last: it may stop us. */
	if (was_stopped)
		release_stop_signals(target);
}

int target_stopped_tid(const struct target *target)
{
	return target->tid;
}

/* Puts the frame below the stack of the thread. *stack, *data: see target_frame_build(). */
static int place_frame(const struct target *target, const void *data, size_t data_bytes,
	uint64_t *stack, uint64_t *data_address)
{
	cleanup_free char *frame = malloc(TARGET_FRAME_MAX);
	cleanup_free char *xstate = malloc(XSTATE_ROOM);
	struct iovec state = {xstate, XSTATE_ROOM};
	struct target_frame_source source = {
		.registers = &target->registers,
		.signal_mask = target->signal_mask,
		.xstate = xstate,
		.sigreturn = target->gadgets.sigreturn,
		.data = data,
		.data_bytes = data_bytes,
	};
	size_t size;
	int code;

	if (frame == NULL || xstate == NULL)
		return -ENOMEM;
	if (ptrace(PTRACE_GETREGSET, target->tid, (long)NT_X86_XSTATE, &state) < 0)
		return errno == ESRCH ? -ESRCH : -ENOTSUP;
	source.xstate_bytes = state.iov_len;
	code = target_frame_build(
		&source, target->registers.rsp - RED_ZONE, frame, &size, data_address, stack);
	if (code < 0)
		return -ENOTSUP;
	if (*data_address < target->stack_low)
		return -EFAULT;
	return target_write(target, *data_address, frame, size);
}

/*
 * Waits for the next stop of a thread whose call has not begun. At the limit it is asked to stop,
 * and that is waited for however long it takes: see let_go(). A frozen one does so at once.
 */
static int wait_beginning(int tid, uint64_t limit_ns, int *status)
{
	const uint64_t began_ns = rouse_clock_ns();

	for (;;) {
		pid_t got = waitpid(tid, status, __WALL | WNOHANG);
		uint64_t now_ns;

		if (got == tid)
			return WIFSTOPPED(*status) ? 0 : -ESRCH;
		if (got < 0 && errno != EINTR)
			return -ESRCH;
		now_ns = rouse_clock_ns();
		if (now_ns > limit_ns)
			break;
		if (now_ns - began_ns > BEGIN_SPIN_NS) {
			const struct timespec nap = {
				.tv_nsec = now_ns - began_ns < BEGIN_SHORT_NS ? 20000 : 1000000};

			(void)nanosleep(&nap, NULL);
		}
	}
	if (ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0)
		return -errno;
	return wait_stopped(tid, status) ? 0 : -ESRCH;
}

/*
 * Lets the thread go on until its call begins. What an error is returned for has not made it: a
 * call begins with a stop, at which the kernel has not looked at it yet.
 *
 * SIGSTOP cannot be blocked, and the thread that makes our call may be the one that gets it. It is
 * told to take it: the process is stopped then, of which the thread tells by an event, but goes on
 * itself for as long as we have it. When it is let go of the kernel stops it with the others.
 *
 * A process that is frozen (cgroup.freeze) can be stopped, but does not come to make a call before
 * it is thawed: to the one who waits it looks as if it just did not come to run. Until the limit.
 *
 * -EIO: it met a fault; -EBUSY: the limit is over; -ESRCH.
 */
static int begin_call(int tid, uint64_t limit_ns)
{
	long signal = 0;

	for (;;) {
		int status, code;

		if (ptrace(PTRACE_SYSCALL, tid, NULL, signal) < 0)
			return -errno;
		code = wait_beginning(tid, limit_ns, &status);
		if (code < 0)
			return code;
		signal = 0;
		if (is_event_stop(status)) {
			if (rouse_clock_ns() > limit_ns)
				return -EBUSY;
			continue;
		}
		if (WSTOPSIG(status) == SYSCALL_STOP)
			return 0;
		if (WSTOPSIG(status) != SIGSTOP)
			return -EIO;
		signal = SIGSTOP; /* also at the limit: an event follows */
	}
}

/*
 * Lets the thread go on until the call that it has begun has returned. Here is no limit: a call
 * that was broken off may have been made, or half of it. It cannot be frozen in the middle of one.
 */
static int finish_call(int tid)
{
	int status;

	do {
		if (ptrace(PTRACE_SYSCALL, tid, NULL, NULL) < 0)
			return -errno;
		if (!wait_stopped(tid, &status))
			return -ESRCH;
	} while (is_event_stop(status));
	return WSTOPSIG(status) == SYSCALL_STOP ? 0 : -EIO;
}

/* Makes the call that the registers are set for. *rax: what it has returned. */
static int run_call(struct target *target, uint64_t *rax)
{
	const int tid = target->tid;
	struct user_regs_struct after;
	int code = begin_call(tid,
		rouse_clock_ns() + (target->is_late ? BEGIN_AGAIN_TIMEOUT_NS : BEGIN_TIMEOUT_NS));

	if (code == -EBUSY)
		target->is_late = true;
	if (code == 0)
		code = finish_call(tid);
	if (code == 0 && ptrace(PTRACE_GETREGS, tid, NULL, &after) < 0)
		code = -errno;
	if (code == 0)
		*rax = after.rax;
	return code;
}

/* Whether a call gave way to a signal before it did anything: clone(2) does to a SIGSTOP. */
static bool gave_way(uint64_t rax)
{
	switch ((int64_t)rax) {
	case KERNEL_ERESTARTSYS:
	case KERNEL_ERESTARTNOINTR:
	case KERNEL_ERESTARTNOHAND:
	case KERNEL_ERESTART_RESTARTBLOCK:
		return true;
	default:
		return false;
	}
}

/*
 * Makes a call of no effect first: during it the signals are blocked. Only then may the real one
 * begin, which may start a thread that must not get any.
 */
static int call_run(struct target *target, const struct user_regs_struct *registers, uint64_t *rax)
{
	struct user_regs_struct first = *registers;
	const uint64_t all = ~UINT64_C(0);
	const int tid = target->tid;
	int code = 0;

	first.rax = SYS_getpid;
	if (ptrace(PTRACE_SETREGS, tid, NULL, &first) < 0)
		return -errno;
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(all), &all) < 0)
		code = -errno;
	if (code == 0)
		code = run_call(target, rax);
	/* What it gave way to is taken before it begins again. */
	for (unsigned int i = 0; code == 0 && (i == 0 || gave_way(*rax)); i++) {
		if (i == CALL_ATTEMPTS)
			code = -EBUSY;
		else if (ptrace(PTRACE_SETREGS, tid, NULL, registers) < 0)
			code = -errno;
		else
			code = run_call(target, rax);
	}
	/* Only in this order: until the registers are put back rt_sigreturn gives the mask, too. */
	if (ptrace(PTRACE_SETSIGMASK, tid, sizeof(target->signal_mask), &target->signal_mask) < 0 ||
		ptrace(PTRACE_SETREGS, tid, NULL, &target->registers) < 0)
		code = -errno;
	return code;
}

static int call_error(const struct target *target, int code, struct rouse_error *error)
{
	if (code == -ESRCH)
		return rouse_error_set(
			error, ROUSE_ERROR_SYSTEM, code, "process %d has ended", target->pid);
	if (code == -EBUSY)
		return rouse_error_set(error, ROUSE_ERROR_REFUSED, code,
			"process %d does not come to run: it is frozen (podman pause, systemctl "
			"freeze), or gets no processor, or one signal after another",
			target->pid);
	return rouse_error_errno(
		error, code, "cannot make a system call in process %d", target->pid);
}

int target_call(struct target *target, long number, const uint64_t given[6], const void *data,
	size_t data_bytes, int64_t *result, struct rouse_error *error)
{
	struct user_regs_struct registers = target->registers;
	uint64_t arguments[6], stack, address, rax = 0;
	int code;

	if (target->tid == 0 || data_bytes > TARGET_FRAME_DATA_MAX)
		return call_error(target, -EINVAL, error);
	code = place_frame(target, data, data_bytes, &stack, &address);
	if (code < 0)
		return call_error(target, code, error);
	for (unsigned int i = 0; i < 6; i++)
		arguments[i] = given[i] == TARGET_DATA ? address : given[i];
	registers.orig_rax = (unsigned long long)-1;
	registers.rip = target->gadgets.syscall;
	registers.rsp = stack;
	registers.rax = (unsigned long long)number;
	registers.rdi = arguments[0];
	registers.rsi = arguments[1];
	registers.rdx = arguments[2];
	registers.r10 = arguments[3];
	registers.r8 = arguments[4];
	registers.r9 = arguments[5];
	registers.eflags &= ~UINT64_C(0x10500); /* no single step, direction flag, resume flag */
	code = call_run(target, &registers, &rax);
	if (code < 0)
		return call_error(target, code, error);
	*result = (int64_t)rax;
	return 0;
}

#else /* another machine */

static int unsupported(struct rouse_error *error)
{
	return rouse_error_set(error, ROUSE_ERROR_UNSUPPORTED, -ENOTSUP,
		"system calls can be made in other processes on x86-64 only");
}

int target_stop(struct target *target, struct rouse_error *error)
{
	(void)target;
	return unsupported(error);
}

void target_go(struct target *target)
{
	(void)target;
}

int target_stopped_tid(const struct target *target)
{
	return target->tid;
}

int target_call(struct target *target, long number, const uint64_t arguments[6], const void *data,
	size_t data_bytes, int64_t *result, struct rouse_error *error)
{
	(void)target, (void)number, (void)arguments, (void)data, (void)data_bytes, (void)result;
	return unsupported(error);
}

#endif
