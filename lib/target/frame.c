/* SPDX-License-Identifier: MIT */
/*
 * A signal frame, as the kernel lays it out on x86-64 (struct rt_sigframe and ucontext in
 * arch/x86/include, the extended state in Intel's manual, volume 1, chapter 13): rt_sigreturn(2)
 * takes every register out of it.
 */
#include "target/target_private.h"

#ifdef __x86_64__

#include <assert.h>
#include <string.h>

#define XSTATE_LEGACY_BYTES 512u
#define XSTATE_HEADER_BYTES 64u
#define XSTATE_LEAST_BYTES (XSTATE_LEGACY_BYTES + XSTATE_HEADER_BYTES)
#define XSTATE_SOFTWARE_OFFSET 464u
#define XSTATE_MAGIC1 0x46505853u
#define XSTATE_MAGIC2 0x46505845u
#define XSTATE_ALIGN 64u

#define FLAG_XSTATE 1u
#define FLAG_SIGCONTEXT_SS 2u
#define FLAG_STRICT_SS 4u
/* No mode of sigaltstack(2): the kernel then leaves the thread's own setting alone. */
#define STACK_MODE_INVALID 0x7u

struct frame_context {
	uint64_t flags;
	uint64_t link;
	uint64_t stack_pointer;
	uint32_t stack_mode;
	uint32_t pad;
	uint64_t stack_size;
	uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
	uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
	uint16_t cs, gs, fs, ss;
	uint64_t err, trapno, oldmask, cr2;
	uint64_t xstate; /* address */
	uint64_t reserved[8];
	uint64_t signal_mask;
};
static_assert(sizeof(struct frame_context) == 304, "the kernel's struct ucontext");
static_assert(offsetof(struct frame_context, r8) == 40, "uc_mcontext");
static_assert(offsetof(struct frame_context, signal_mask) == 296, "uc_sigmask");

/* In the bytes of the legacy area that the processor does not use. */
struct software_bytes {
	uint32_t magic1;
	uint32_t extended_bytes;
	uint64_t features;
	uint32_t xstate_bytes;
	uint32_t reserved[7];
};
static_assert(sizeof(struct software_bytes) == XSTATE_LEGACY_BYTES - XSTATE_SOFTWARE_OFFSET,
	"struct _fpx_sw_bytes");

/*
 * How much of the extended state is in use: what lies behind that is in its initial state, and
 * naming it would be refused where a thread has not been given it (AMX).
 */
static size_t xstate_used(uint64_t features)
{
	size_t used = XSTATE_LEAST_BYTES;

	for (unsigned int i = 2; i < 63; i++) {
		uint32_t bytes, offset, c, d;

		if ((features >> i & 1) == 0)
			continue;
		__asm__("cpuid" : "=a"(bytes), "=b"(offset), "=c"(c), "=d"(d) : "a"(0xd), "c"(i));
		if (bytes != 0 && offset + bytes > used)
			used = offset + bytes;
	}
	return used;
}

static void fill_context(
	const struct target_frame_source *source, struct frame_context *context, uint64_t xstate)
{
	const struct user_regs_struct *from = source->registers;

	*context = (struct frame_context){
		.flags = FLAG_XSTATE | FLAG_SIGCONTEXT_SS | FLAG_STRICT_SS,
		.stack_mode = STACK_MODE_INVALID,
		.r8 = from->r8,
		.r9 = from->r9,
		.r10 = from->r10,
		.r11 = from->r11,
		.r12 = from->r12,
		.r13 = from->r13,
		.r14 = from->r14,
		.r15 = from->r15,
		.rdi = from->rdi,
		.rsi = from->rsi,
		.rbp = from->rbp,
		.rbx = from->rbx,
		.rdx = from->rdx,
		.rax = from->rax,
		.rcx = from->rcx,
		.rsp = from->rsp,
		.rip = from->rip,
		.eflags = from->eflags,
		.cs = (uint16_t)from->cs,
		.ss = (uint16_t)from->ss,
		.xstate = xstate,
		.signal_mask = source->signal_mask,
	};
}

int target_frame_build(const struct target_frame_source *source, uint64_t top, void *buffer,
	size_t *size, uint64_t *address, uint64_t *stack)
{
	struct software_bytes software = {.magic1 = XSTATE_MAGIC1};
	const uint32_t magic2 = XSTATE_MAGIC2;
	struct frame_context context;
	uint64_t features, xstate;
	size_t used;
	char *at = buffer;

	if (source->xstate_bytes < XSTATE_LEAST_BYTES || source->data_bytes > TARGET_FRAME_DATA_MAX)
		return -EINVAL;
	memcpy(&features, (const char *)source->xstate + XSTATE_LEGACY_BYTES, sizeof(features));
	used = xstate_used(features);
	if (used > source->xstate_bytes)
		return -EINVAL;
	if (used + sizeof(context) + 2 * XSTATE_ALIGN + TARGET_FRAME_DATA_MAX > TARGET_FRAME_MAX)
		return -E2BIG;
	xstate = (top - used - sizeof(magic2)) / XSTATE_ALIGN * XSTATE_ALIGN;
	*stack = (xstate - sizeof(context)) / 16 * 16 - 8; /* as after a call */
	*address = (*stack - source->data_bytes) / 16 * 16;
	*size = (size_t)(xstate + used + sizeof(magic2) - *address);
	memset(buffer, 0, *size);

	fill_context(source, &context, xstate);
	software.extended_bytes = (uint32_t)(used + sizeof(magic2));
	software.xstate_bytes = (uint32_t)used;
	/* The two legacy parts (x87 and SSE) are in the frame in any case. */
	software.features = features | 3;
	if (source->data_bytes > 0)
		memcpy(at, source->data, source->data_bytes);
	memcpy(at + (*stack - *address), &source->sigreturn, 8);
	memcpy(at + (*stack + 8 - *address), &context, sizeof(context));
	at += xstate - *address;
	memcpy(at, source->xstate, used);
	memcpy(at + XSTATE_SOFTWARE_OFFSET, &software, sizeof(software));
	memcpy(at + used, &magic2, sizeof(magic2));
	return 0;
}

#endif
